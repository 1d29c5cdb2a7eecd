"""Muon against the singular value decomposition and torch's own, and AdamW beside it."""

import pytest
import torch
from torch import Tensor, nn

from shared.train.optimizer import (
    MUON_MOMENTUM,
    MUON_SCALE,
    MuonAdamW,
    build_optimizer,
    hidden_matrices,
    orthogonal,
)
from tests.toy import ToyPanel, toy_config


class Net(nn.Module):
    """An embedding, one block with a wide and a tall layer, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 5)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 5))])
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks[0](self.embed(x)))


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (6, 6)])
@pytest.mark.parametrize(("narrow", "rounding"), [(False, 1e-6), (True, 0.05)])
def test_orthogonal_keeps_singular_vectors_and_evens_the_values(
    shape: tuple[int, int], narrow: bool, rounding: float
):
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    matrices[1] *= 100  # each is scaled by its own size
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    rotated = u.mT @ orthogonal(matrices, narrow) @ vh.mT
    values = rotated.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(rotated, torch.diag_embed(values), atol=rounding, rtol=0)
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.25


def test_hidden_matrices_are_those_inside_blocks():
    net = Net()
    first, second = net.blocks[0][0], net.blocks[0][2]  # type: ignore[index]
    assert {id(p) for p in hidden_matrices(net)} == {id(first.weight), id(second.weight)}


def test_matrix_in_a_list_within_a_list_is_taken_once():
    inner = nn.ModuleList([nn.Linear(2, 3), nn.Conv2d(2, 3, 3)])
    found = hidden_matrices(nn.Sequential(nn.Conv2d(2, 2, 3), nn.ModuleList([inner])))
    assert [id(p) for p in found] == [id(inner[0].weight), id(inner[1].weight)]


def test_steps_are_those_of_torchs_muon_and_adamw():
    """Three steps, each from the same weights, of gradients with singular values all of a size:
    rounding to bfloat16, which both do to Muon's, turns the vectors of small ones anyhow."""
    torch.manual_seed(1)
    words = ("train.optimizer=muon", "train.lr=3e-3", "train.weight_decay=0.1")
    config = toy_config(*words, "train.precision=bf16").train
    ours, theirs = Net(), Net()
    theirs.load_state_dict(ours.state_dict())
    optimizer = build_optimizer(ours, config)
    hidden = hidden_matrices(theirs)
    chosen = {id(p) for p in hidden}
    rest = [p for p in theirs.parameters() if id(p) not in chosen]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    rate = 3e-3 * MUON_SCALE
    references = [
        torch.optim.AdamW(groups, lr=3e-3, betas=config.betas),
        torch.optim.Muon(hidden, lr=rate, weight_decay=0, momentum=MUON_MOMENTUM),
    ]
    for _ in range(3):
        theirs.load_state_dict(ours.state_dict())
        start = {name: p.detach().clone() for name, p in ours.named_parameters()}
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for each in (optimizer, *references):
            each.step()
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            moved, expected = (a - start[name]).flatten(), (b - start[name]).flatten()
            if id(b) in chosen:
                cosine = torch.cosine_similarity(moved, expected, dim=0)
                assert cosine.item() > 0.99, name
                assert (moved.norm() / expected.norm()).item() == pytest.approx(1, abs=0.02), name
            else:
                torch.testing.assert_close(moved, expected, atol=1e-7, rtol=1e-4, msg=name)


SHAPES = [(5, 2, 3, 4), (7, 3, 1, 1)]  # of kernels: wide and tall as matrices


def steps_of_muon(shape: tuple[int, ...], gradients: list[Tensor]) -> Tensor:
    """How far a hidden weight of this shape, (out, in) or of a convolution, moves."""
    out, inputs, *sides = shape
    layer = nn.Conv2d(inputs, out, (sides[0], sides[1])) if sides else nn.Linear(inputs, out)
    weight = layer.weight
    nn.init.zeros_(weight)
    config = toy_config("train.optimizer=muon", "train.lr=3e-3").train
    optimizer = build_optimizer(nn.ModuleList([layer]), config)
    for gradient in gradients:
        weight.grad = gradient.reshape(shape).clone()
        optimizer.step()
    assert optimizer.state[weight]["exp_avg"].shape == weight.shape
    return weight.detach()


@pytest.mark.parametrize("shape", SHAPES)
def test_first_step_of_a_convolution_is_its_flattened_gradient_made_orthogonal(
    shape: tuple[int, ...],
):
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    u, _, vh = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
    moved = steps_of_muon(shape, [gradient]).flatten(1)
    rate = 3e-3 * MUON_SCALE * max(1.0, len(moved) / moved.shape[1]) ** 0.5
    rotated = -u.T @ moved @ vh.T / rate
    values = rotated.diagonal()
    torch.testing.assert_close(rotated, values.diag(), atol=1e-4, rtol=0)
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.25


@pytest.mark.parametrize("shape", SHAPES)
def test_convolution_moves_as_a_linear_layer_of_its_patches(shape: tuple[int, ...]):
    generator = torch.Generator().manual_seed(3)
    gradients = [torch.randn(shape, generator=generator) for _ in range(3)]
    flat = (shape[0], gradients[0][0].numel())
    moved, expected = (steps_of_muon(s, gradients) for s in (shape, flat))
    torch.testing.assert_close(moved.flatten(1), expected, atol=1e-7, rtol=0)


def test_every_trained_parameter_is_in_one_group():
    config = toy_config("train.optimizer=muon")
    learner = ToyPanel().learner(config, None)  # type: ignore[arg-type]
    groups = build_optimizer(learner, config.train).param_groups
    moving = [id(p) for group in groups for p in group["params"]]
    assert sorted(moving) == sorted(id(p) for p in learner.parameters())
    assert any(group["muon"] for group in groups)


def test_state_is_made_where_the_weights_are(monkeypatch: pytest.MonkeyPatch):
    """A fused step takes it from there; one on a device without numbers cannot be taken."""
    monkeypatch.setattr("shared.train.optimizer.adamw", lambda *_, **named: None)
    weight = nn.Parameter(torch.zeros(3, device="meta"))
    weight.grad = torch.zeros_like(weight)
    built = MuonAdamW([{"params": [weight], "weight_decay": 0.0}], 1e-3, (0.9, 0.99))
    built.step()
    assert {each.device.type for each in built.state[weight].values()} == {"meta"}


def test_muon_with_cut_matrices_is_refused():
    with pytest.raises(Exception, match=r"train\.zero_stage = 0, got 2"):
        toy_config("train.optimizer=muon", "train.zero_stage=2")
