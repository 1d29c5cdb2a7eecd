"""Optimizers of a run: AdamW, or Muon for the hidden matrices with AdamW for all else.

Muon (Jordan et al. 2024) makes the momentum of a matrix orthogonal before the step, so that every
direction of it moves alike; short runs then need about half of AdamW's steps. It looks at whole
matrices, which ZeRO 1 to 3 cut into pieces: it is for stage 0. The kernel of a convolution is the
matrix (out, in x height x width) that multiplies a patch, as in Jordan's training of CIFAR-10.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from shared.config import TrainConfig

MUON_SCALE = 20 / 3  # of train.lr for the hidden matrices: 0.02 beside AdamW's 0.003
MUON_MOMENTUM = 0.95
# Quintic Newton-Schulz iteration towards the nearest orthogonal matrix, five times.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def build_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer that a configuration names."""
    if config.optimizer == "adamw":
        groups = decay_groups(module, config.weight_decay)
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
    hidden = {id(p) for p in hidden_matrices(module)}
    rest = decay_groups(module, config.weight_decay)
    for group in rest:
        group["params"] = [p for p in group["params"] if id(p) not in hidden]
    muon = {"params": hidden_matrices(module), "muon": True, "weight_decay": 0.0}
    groups = [group for group in [*rest, muon] if group["params"]]
    return MuonAdamW(groups, config.lr, config.betas, narrow=config.precision == "bf16")


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: matrices decay; vectors (biases, tables of one row) do not, as usual since
    GPT-2."""
    trained = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim >= 2]
    vectors = [p for p in trained if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def hidden_matrices(module: nn.Module) -> list[Tensor]:
    """The weights of linear layers and convolutions inside a list of blocks, each once: neither
    embeddings, nor the layers before the first and after the last block."""
    layers = dict.fromkeys(  # lists may stand in lists: a U-Net's levels hold their blocks
        layer
        for blocks in module.modules()
        if isinstance(blocks, nn.ModuleList)
        for layer in blocks.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    )
    return [layer.weight for layer in layers if layer.weight.requires_grad]


class MuonAdamW(torch.optim.Optimizer):
    """Groups with `muon: True` take Muon's step, the others AdamW's.

    Every parameter's state has AdamW's names, so that a checkpoint knows one kind only: Muon's
    momentum is exp_avg, and its exp_avg_sq stays zero. `narrow`: see `orthogonal`.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        narrow: bool = False,
    ) -> None:
        self.narrow = narrow
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": 1e-8, "muon": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update from the gradients that are there."""
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None]
            for p in moving:
                if not self.state[p]:
                    zeros = {key: torch.zeros_like(p) for key in ("exp_avg", "exp_avg_sq")}
                    self.state[p] = zeros | {"step": torch.tensor(0.0, device=p.device)}
            if group["muon"]:
                self._muon(moving, group["lr"])
            else:
                self._adamw(moving, group)

    def _muon(self, moving: list[Tensor], lr: float) -> None:
        by_shape: dict[tuple[int, int], list[Tensor]] = {}
        for p in moving:
            by_shape.setdefault((len(p), p[0].numel()), []).append(p)
        for (rows, columns), alike in by_shape.items():
            steps: list[Tensor] = []
            for p in alike:
                assert p.grad is not None
                momentum = self.state[p]["exp_avg"].mul_(MUON_MOMENTUM).add_(p.grad)
                self.state[p]["step"] += 1
                step = p.grad.add(momentum, alpha=MUON_MOMENTUM)  # Nesterov
                steps.append(step.flatten(1))
            tall = max(1.0, rows / columns) ** 0.5
            updates = orthogonal(torch.stack(steps), self.narrow)
            for p, update in zip(alike, updates, strict=True):
                p.add_(update.view(p.shape), alpha=-lr * MUON_SCALE * tall)

    def _adamw(self, moving: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[p] for p in moving]
        adamw(
            moving,
            [p.grad for p in moving if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def orthogonal(matrices: Tensor, narrow: bool = False) -> Tensor:
    """Matrices (K, M, N), each with nearly equal singular values, about 1, and the same singular
    vectors as before. `narrow` iterates float32 in bfloat16, which is enough: the values end in a
    band anyway. All K are one product, at a fifth less than one by one."""
    a, b, c = COEFFICIENTS
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    x = x.bfloat16() if narrow else x
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).to(matrices.dtype)
