"""The transformer: closed at the start, positions, conditions, levels."""

import math
from typing import Any

import pytest
import torch

from shared.nets.attention import Attention, rotate
from shared.nets.condition import SourceReader
from shared.nets.transformer import Block, Transformer, level_features

B, L, IN, OUT = 2, 5, 3, 7


def opened(**settings: Any) -> Transformer:
    """A transformer whose zero layers were filled, so that everything can act."""
    torch.manual_seed(0)
    net = Transformer(IN, OUT, L, dim=16, depth=2, heads=2, **settings)
    for p in net.parameters():
        if not bool(p.any()):
            torch.nn.init.normal_(p, std=0.2)
    return net.eval()


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(B, L, IN), torch.tensor([-3.0, 2.0])


def test_first_output_is_zero():
    x, logsnr = inputs()
    net = Transformer(IN, OUT, L, dim=16, depth=2, heads=2, conditions=4)
    out = net(x, logsnr, torch.tensor([[1], [2]]))
    assert out.shape == (B, L, OUT)
    assert not bool(out.any())


def test_every_parameter_receives_a_gradient_once_opened():
    x, logsnr = inputs()
    net = opened(conditions=4, cross_attention=True, source_depth=2)
    net(x, logsnr, torch.tensor([[1, 2], [3, 1]])).square().sum().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_samples_do_not_see_each_other():
    x, logsnr = inputs()
    net = opened()
    torch.testing.assert_close(net(x, logsnr)[1:], net(x[1:], logsnr[1:]))


def test_rows_of_their_own_length_are_told_it_and_do_not_see_beyond_it():
    x, logsnr = inputs()
    net = opened(told_lengths=True)
    lengths = torch.tensor([2, 4])
    base, moved = net(x, logsnr, None, lengths), x.clone()
    for i, length in enumerate(lengths.tolist()):
        moved[i, length:] += 1
        torch.testing.assert_close(net(moved, logsnr, None, lengths)[i, :length], base[i, :length])
        longer = net(x, logsnr, None, lengths + 1)
        assert bool(((longer - base)[i, :length].abs().amax(-1) > 1e-4).all())
        within = moved.clone()
        within[i, length - 1] += 1
        changed = (net(within, logsnr, None, lengths) - base)[i, :length].abs().amax(-1)
        assert bool((changed > 1e-4).all())
    with pytest.raises(ValueError, match="told_lengths, which needs them"):
        net(x, logsnr)
    with pytest.raises(ValueError, match="told_lengths"):
        opened()(x, logsnr, None, lengths)


def test_output_depends_on_the_level_and_on_every_place():
    x, logsnr = inputs()
    net = opened()
    base = net(x, logsnr)
    assert not torch.allclose(net(x, logsnr + 0.5), base)
    for place in range(L):
        moved = x.clone()
        moved[:, place] += 1
        changed = (net(moved, logsnr) - base).abs().amax(-1)
        assert bool((changed > 1e-4).all()), place


def test_without_positions_the_trunk_is_equivariant():
    x, logsnr = inputs()
    net = opened(rotary=None)
    torch.nn.init.zeros_(net.place)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(net(x[:, order], logsnr), net(x, logsnr)[:, order])
    net.place.data.normal_()
    assert not torch.allclose(net(x[:, order], logsnr), net(x, logsnr)[:, order], atol=1e-3)


def test_attention_turns_queries_and_keys_by_their_places():
    """Against complex numbers place by place: pair d of a head turns by 10000^(-2 d / D) a place
    (Su et al. 2021, eq. 15), and only the difference of two places is left in a score."""
    torch.manual_seed(4)
    dim, heads, n = 12, 2, 5
    attention = Attention(dim, heads, rotary="row")
    x = torch.randn(3, n, dim)
    D = dim // heads

    def pairs(flat: torch.Tensor) -> torch.Tensor:
        return torch.view_as_complex(flat.reshape(3, n, heads, D // 2, 2))

    q = pairs(attention.query(x))
    keys, values = attention.key_value(x).split(dim, -1)
    k, v = pairs(keys), values.reshape(3, n, heads, D)
    rates = 10000.0 ** (-2 * torch.arange(D // 2) / D)
    mixed = torch.zeros(3, n, heads, D)
    for i in range(n):
        turn = torch.exp(1j * (i - torch.arange(n))[:, None, None] * rates)  # (n, 1, D / 2)
        scores = (q[:, i : i + 1] * k.conj() * turn).real.sum(-1) / D**0.5  # (3, n, heads)
        mixed[:, i] = (scores.softmax(1)[..., None] * v).sum(1)
    torch.testing.assert_close(attention(x), attention.out(mixed.flatten(-2)))


@pytest.mark.parametrize("lengths", [(), (2, L - 2)], ids=["all alike", "two stretches"])
def test_block_is_gated_attention_and_mlp_of_the_modulated_norm(lengths: tuple[int, ...]):
    """Peebles & Xie 2023, fig. 3: x + gate f(norm(x) (1 + scale) + shift), attention first."""
    torch.manual_seed(5)
    block = Block(16, 2, rotary="row", cross=False, dropout=0.0)
    x, m = torch.randn(B, L, 16), torch.randn(B, 6, *([2] if lengths else []), 16)
    of_place = m[:, :, [0, 0] + [1] * (L - 2)] if lengths else m[:, :, None]
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (of_place + block.table[:, None]).unbind(1)

    def norm(h: torch.Tensor) -> torch.Tensor:
        centred = h - h.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    h = x + gate_a * block.attention(norm(x) * (1 + scale_a) + shift_a)
    expected = h + gate_m * block.mlp(norm(h) * (1 + scale_m) + shift_m)
    torch.testing.assert_close(block(x, m, lengths=lengths), expected)


def test_level_features_are_points_on_circles_of_their_periods():
    features = level_features(torch.tensor([0.1, 0.1 + 0.4, 3.0, 3.0 + 400.0]), 8)
    sines, cosines = features[:, :4], features[:, 4:]
    torch.testing.assert_close(sines**2 + cosines**2, torch.ones(4, 4))
    torch.testing.assert_close(features[0, [0, 4]], features[1, [0, 4]], atol=1e-5, rtol=0)
    torch.testing.assert_close(features[2, [3, 7]], features[3, [3, 7]], atol=1e-4, rtol=0)
    torch.testing.assert_close(sines[0, 3].item(), math.sin(2 * math.pi * 0.1 / 400))


def test_rotary_products_depend_on_offsets_only():
    torch.manual_seed(2)
    q, k = torch.randn(1, 1, 3, 8), torch.randn(1, 1, 3, 8)
    scores = torch.einsum(
        "blhd,bmhd->hlm", rotate(q.expand(1, 9, 3, 8)), rotate(k.expand(1, 9, 3, 8))
    )
    for offset in range(-8, 9):
        diagonal = scores.diagonal(offset, 1, 2)
        torch.testing.assert_close(diagonal, diagonal[:, :1].expand_as(diagonal))
    assert not torch.allclose(scores[:, 0, 0], scores[:, 0, 5])


def test_a_grid_turns_half_of_the_channels_by_the_row_and_half_by_the_column():
    """Place by place in complex numbers: pair d of D / 4 turns by 100^(-4 d / D) a row, those after
    them a column (Heo et al. 2024, eq. 5 and 6)."""
    torch.manual_seed(3)
    x = torch.randn(2, 6, 3, 8)
    found = torch.view_as_complex(rotate(x, 3).unflatten(-1, (4, 2)))
    given = torch.view_as_complex(x.unflatten(-1, (4, 2)))
    for place in range(6):
        row, column = divmod(place, 3)
        angles = torch.tensor([row, row * 100**-0.5, column, column * 100**-0.5])
        torch.testing.assert_close(found[:, place], given[:, place] * torch.exp(1j * angles))
    with pytest.raises(ValueError, match="multiple of 4 x heads = 8"):
        Attention(12, 2, rotary=3)


@pytest.mark.parametrize("cross", [False, True])
def test_dropped_condition_is_no_condition_and_a_condition_matters(cross: bool):
    x, logsnr = inputs()
    net = opened(conditions=5, cross_attention=cross)
    none = net(x, logsnr, None)
    torch.testing.assert_close(net(x, logsnr, torch.zeros(B, 1, dtype=torch.long)), none)
    assert not torch.allclose(net(x, logsnr, torch.tensor([[1], [1]])), none, atol=1e-3)


@pytest.mark.parametrize("cross", [False, True])
def test_padding_ids_and_the_order_of_conditions_do_not_matter(cross: bool):
    x, logsnr = inputs()
    net = opened(conditions=5, cross_attention=cross)
    short = net(x, logsnr, torch.tensor([[2, 3], [4, 1]]))
    for padded in ([[2, 3, 0, 0], [4, 1, 0, 0]], [[0, 3, 0, 2], [1, 4, 0, 0]]):
        torch.testing.assert_close(net(x, logsnr, torch.tensor(padded)), short)
    none = net(x, logsnr, None)
    torch.testing.assert_close(net(x, logsnr, torch.zeros(B, 4, dtype=torch.long)), none)
    one = net(x, logsnr, torch.tensor([[2], [4]]))
    assert not torch.allclose(one, short, atol=1e-3)  # each id counts


def test_cross_attention_starts_closed():
    x, logsnr = inputs()
    torch.manual_seed(3)
    net = Transformer(IN, OUT, L, dim=16, depth=2, heads=2, conditions=5, cross_attention=True)
    torch.nn.init.normal_(net.out.weight)
    a, b = torch.tensor([[2], [4]]), torch.tensor([[3], [1]])
    before = net(x, logsnr, a)
    assert bool(before.any())
    torch.testing.assert_close(net(x, logsnr, b), before)
    for block in net.blocks:
        block.cross = None  # type: ignore[assignment]
    torch.testing.assert_close(net(x, logsnr, a), before)


def test_inputs_of_another_size_are_refused():
    x, logsnr = inputs()
    net = Transformer(IN, OUT, L, dim=16, depth=1, heads=2)
    for wrong in (x[:, :1], x[:, :-1], x[..., :1], x[0]):
        with pytest.raises(ValueError, match=r"expected \(B, 5, 3\)"):
            net(wrong, logsnr)
    with pytest.raises(ValueError, match="conditions = 0"):
        net(x, logsnr, torch.ones(B, 1, dtype=torch.long))


def test_level_features_tell_levels_apart_over_thirty_nats():
    features = level_features(torch.linspace(-15, 15, 301), 32)
    apart = torch.cdist(features, features) + 9 * torch.eye(301)
    assert float(apart.min()) > 0.05


def test_width_that_heads_cannot_share_is_refused():
    with pytest.raises(ValueError, match="multiple of 2 x heads"):
        Transformer(IN, OUT, L, dim=18, depth=1, heads=4)


def test_a_source_is_a_sequence_and_its_padding_does_not_count():
    x, logsnr = inputs()
    net = opened(conditions=5, cross_attention=True, source_depth=2)
    out = net(x, logsnr, torch.tensor([[1, 2, 3], [4, 2, 1]]))
    turned = net(x, logsnr, torch.tensor([[1, 3, 2], [4, 1, 2]]))
    assert bool(((turned - out).abs().amax((1, 2)) > 1e-3).all())
    padded = net(x, logsnr, torch.tensor([[1, 2, 3, 0], [4, 2, 1, 0]]))
    torch.testing.assert_close(padded, out)


def test_a_source_that_is_dropped_is_no_source():
    x, logsnr = inputs()
    net = opened(conditions=5, cross_attention=True, source_depth=1)
    torch.testing.assert_close(net(x, logsnr, torch.zeros(B, 4, dtype=torch.long)), net(x, logsnr))


def test_blocks_that_read_a_source_begin_as_the_identity():
    reader = SourceReader(16, depth=2, heads=2)
    tokens, counts = torch.randn(B, 3, 16), torch.ones(B, 3, dtype=torch.bool)
    torch.testing.assert_close(reader(tokens, counts), tokens)
