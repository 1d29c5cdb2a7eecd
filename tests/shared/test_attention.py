"""The attention of CPUs in bfloat16 is torch's own, up to bfloat16."""

import pytest
import torch
import torch.nn.functional as F

from shared.nets.transformer import attend


@pytest.mark.parametrize("masked", [False, True])
def test_plain_bfloat16_attention_equals_the_fused_kernel(masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    B, H, L, M, D = 2, 3, 5, 7, 8
    q = torch.randn(B, H, L, D, generator=generator)
    k = torch.randn(B, H, M, D, generator=generator)
    v = torch.randn(B, H, M, D, generator=generator)
    mask = torch.arange(M).expand(B, 1, 1, M) < 4 if masked else None
    plain = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask).float()
    fused = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(plain, fused, atol=0.03, rtol=0)
