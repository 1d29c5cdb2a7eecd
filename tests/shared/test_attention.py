"""The attention of CPUs in bfloat16 is torch's own, up to bfloat16."""

import pytest
import torch

from shared.nets.attention import attend


@pytest.mark.parametrize("masked", [False, True])
def test_attention_mixes_places_not_heads(masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    B, L, M, H, D = 2, 5, 7, 3, 8
    q = torch.randn(B, L, H, D, generator=generator)
    k = torch.randn(B, M, H, D, generator=generator)
    v = torch.randn(B, M, H, D, generator=generator)
    mask = torch.arange(M).expand(B, 1, 1, M) < 4 if masked else None
    scores = torch.einsum("blhd,bmhd->bhlm", q, k) / D**0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    expected = torch.einsum("bhlm,bmhd->blhd", scores.softmax(-1), v)
    torch.testing.assert_close(attend(q, k, v, mask), expected)
    narrow = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask).float()
    torch.testing.assert_close(narrow, expected, atol=0.03, rtol=0)
