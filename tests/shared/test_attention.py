"""Attention in bfloat16 on a CPU is torch's own, up to bfloat16; compiled blocks are eager ones."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shared.nets.attention import attend
from shared.nets.transformer import Transformer
from shared.train.loop import compile_blocks


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


def test_compiled_blocks_are_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the backend that traces as the real one does, and needs no C++ compiler."""
    compiled: list[nn.Module] = []
    whole = nn.Module.compile

    def traced(self: nn.Module, **words: Any) -> None:
        compiled.append(self)
        whole(self, backend="aot_eager", **words)

    monkeypatch.setattr(nn.Module, "compile", traced)
    torch.manual_seed(0)
    net = Transformer(3, 5, 7, dim=16, depth=2, heads=2, conditions=4, cross_attention=True)
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    x, logsnr = torch.randn(2, 7, 3), torch.tensor([-1.0, 2.0])
    condition, names = torch.tensor([[1, 2], [3, 0]]), list(net.state_dict())

    def results() -> list[Tensor]:
        out = net(x, logsnr, condition)
        return [out, *torch.autograd.grad(out.square().sum(), list(net.parameters()))]

    eager = results()
    compile_blocks(net)
    assert compiled == list(net.blocks)
    assert list(net.state_dict()) == names
    torch.testing.assert_close(results(), eager)
