"""Conditions of vectors, such as the patches of a picture: what is none, and what is seen."""

import pytest
import torch
from torch.testing import assert_close

from shared.guidance import classifier_free
from shared.nets.condition import that_count
from shared.nets.patches import patchify, seen
from shared.nets.transformer import Transformer
from shared.objective import drop_condition
from shared.schedule import Cosine

B, L, IN, OUT = 2, 5, 3, 7
M, D = 6, 4  # vectors of a condition, numbers of each


def opened() -> Transformer:
    """A network whose zero layers were filled, so that everything can act."""
    torch.manual_seed(0)
    net = Transformer(
        IN, OUT, L, dim=16, depth=2, heads=2, conditions=(M, D), cross_attention=True,
        source_depth=2,
    )  # fmt: skip
    for p in net.parameters():
        if not bool(p.any()):
            torch.nn.init.normal_(p, std=0.2)
    return net.eval()


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(B, L, IN), torch.tensor([-3.0, 2.0]), torch.rand(B, M, D) * 2 - 1


def test_every_byte_is_a_number_other_than_0_and_its_own() -> None:
    values = seen(torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16), 1).flatten()
    assert_close(values, torch.linspace(-1, 1, 256))
    assert float(values.abs().min()) == pytest.approx(1 / 255, rel=1e-4)
    assert (values.diff() > 0).all()


def test_a_picture_is_seen_patch_by_patch_from_the_top_left() -> None:
    picture = torch.randint(256, (B, 3, 4, 6), dtype=torch.uint8)
    rows = seen(picture, 2)
    assert rows.shape == (B, 2 * 3, 3 * 2 * 2)
    assert_close(rows, patchify(picture.float() / 127.5 - 1, 2), atol=1e-6, rtol=0)
    corner = picture[1, :, 2:, 2:4].float() / 127.5 - 1  # second row, second column
    assert_close(rows[1, 4], corner.flatten(), atol=1e-6, rtol=0)


def test_vectors_of_zeros_do_not_count_unless_there_is_nothing_else() -> None:
    rows = torch.zeros(3, 4, 2)
    rows[0, 2, 1], rows[1, 0, 0], rows[1, 3, 1] = 0.5, -1.0, 0.1
    found = that_count(rows)
    assert found.int().tolist() == [[0, 0, 1, 0], [1, 0, 0, 1], [1, 0, 0, 0]]


def test_zeros_are_no_condition_and_everything_else_is_seen_in_its_place() -> None:
    x, logsnr, rows = inputs()
    net = opened()
    without = net(x, logsnr)
    assert_close(net(x, logsnr, torch.zeros_like(rows)), without)
    base = net(x, logsnr, rows)
    assert not torch.allclose(base, without)
    assert not torch.allclose(net(x, logsnr, rows.flip(1)), base)
    for place in range(M):
        moved = rows.clone()
        moved[0, place] += 0.5
        changed = (net(x, logsnr, moved) - base).abs().amax((1, 2))
        assert changed[0] > 1e-5
        assert changed[1] == 0


def test_every_parameter_receives_a_gradient() -> None:
    x, logsnr, rows = inputs()
    net = opened()
    net(x, logsnr, rows).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("shape", [(B, M), (B, M + 1, D), (B, M, D + 1)])
def test_rows_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    x, logsnr, _ = inputs()
    with pytest.raises(ValueError, match=rf"condition .*, expected \(B, {M}, {D}\)"):
        opened()(x, logsnr, torch.ones(shape))


def test_rows_are_dropped_whole_and_the_same_ones_as_of_ids() -> None:
    keys = torch.arange(200)
    rows = drop_condition(torch.ones(200, M, D), keys, 0.3)
    ids = drop_condition(torch.ones(200, 3, dtype=torch.long), keys, 0.3)
    assert torch.equal(rows, ids[:, :1, None].float().expand(-1, M, D))
    assert 30 < int((ids[:, 0] == 0).sum()) < 90  # mean 60, standard deviation 6.5


def test_guidance_departs_from_zeros() -> None:
    """x0_none + scale (x0_rows - x0_none) (Ho & Salimans 2022, eq. 6)."""
    _, _, rows = inputs()
    mixing = torch.randn(M * D, IN)

    def denoise(x_t, level, condition=None, previous=None):
        assert condition is not None
        return x_t * level.widen(3).alpha + (condition.flatten(1) @ mixing)[:, None].tanh()

    level = Cosine()(torch.tensor([0.3, 0.6]))
    x_t = torch.randn(B, L, IN)
    none = denoise(x_t, level, torch.zeros_like(rows))
    exact = none + 2.5 * (denoise(x_t, level, rows) - none)
    assert_close(classifier_free(denoise, 2.5)(x_t, level, rows), exact)
    assert_close(classifier_free(denoise, 0.0)(x_t, level, rows), none)
