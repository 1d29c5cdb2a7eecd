"""Training steps of Diffusion-LM's size beside its network: `python -m benchmarks.diffusion_lm`.

12 layers of 768, sentences of 64 places, batches of 8 (Li et al. 2022, sec. 5, and their code). The
peer is their network, made anew around the same encoder of `transformers`, with their end-to-end
loss, AdamW and moving average, in plain PyTorch. Ours are whole steps under DeepSpeed: their
objective, then that of text/e2e with and without self-conditioning. All take turns.
"""

import math
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertEncoder

from benchmarks.command import command
from benchmarks.measure import Task, facts, interleave, ratio
from benchmarks.recipe import parameters, prepare
from benchmarks.tables import Column, Table
from shared.config import NetConfig
from shared.errors import ConfigError
from shared.train.engine import set_up
from text.codec import Embedding

STEPS, RATE, AVERAGE = 2000, 1e-4, 0.9999  # of theirs
SIZE = (
    "net.dim=768", "net.depth=12", "net.heads=12", "data.length=64", "data.min_count=11",
    "train.optimizer=adamw",
)  # fmt: skip
THEIRS, SAME = "Diffusion-LM", "their objective"
OURS = {
    SAME: ("text/e2e_diffusion_lm_paper", ()),
    "text/e2e, one pass": ("text/e2e", (*SIZE, "diffusion.self_condition=false")),
    "text/e2e": ("text/e2e", SIZE),
}


class Theirs(nn.Module):
    """ids (B, L) -> the end-to-end loss of their TransformerNetModel2 (B,)."""

    def __init__(self, words: int, dim: int, size: NetConfig, length: int) -> None:
        super().__init__()
        width = size.dim
        self.embedding, self.readout = nn.Embedding(words, dim), nn.Linear(dim, words)
        self.readout.weight = self.embedding.weight
        self.up = nn.Sequential(nn.Linear(dim, width), nn.Tanh(), nn.Linear(width, width))
        self.down = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, dim))
        self.time = nn.Sequential(nn.Linear(128, 512), nn.SiLU(), nn.Linear(512, width))
        self.place = nn.Embedding(length, width)
        self.norm, self.dropout = nn.LayerNorm(width, eps=1e-12), nn.Dropout(0.1)
        config = BertConfig(
            hidden_size=width, num_hidden_layers=size.depth, num_attention_heads=size.heads,
            intermediate_size=4 * width,
        )  # fmt: skip
        config._attn_implementation = "sdpa"
        self.encoder = BertEncoder(config)
        self.alpha_bar = nn.Buffer(_alpha_bar().float())
        self.frequencies = nn.Buffer(torch.exp(-math.log(1e4) * torch.arange(64) / 64))

    def forward(self, ids: Tensor) -> Tensor:
        t = torch.randint(STEPS, (len(ids),), device=ids.device)
        mean = self.embedding(ids)
        x0 = mean + (1 - self.alpha_bar[0]).sqrt() * torch.randn_like(mean)
        kept = self.alpha_bar[t].view(-1, 1, 1)
        estimate = self.network(kept.sqrt() * x0 + (1 - kept).sqrt() * torch.randn_like(x0), t)
        target = torch.where((t == 0).view(-1, 1, 1), mean, x0)
        error = (estimate - target).square().mean((1, 2))
        prior = (self.alpha_bar[-1] * x0.square()).mean((1, 2))
        rounding = F.cross_entropy(self.readout(x0).transpose(1, 2), ids, reduction="none").mean(1)
        return error + prior + rounding

    def network(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies
        time = self.time(torch.cat([angles.cos(), angles.sin()], 1))
        hidden = self.up(x) + time[:, None] + self.place.weight[None, : x.shape[1]]
        return self.down(self.encoder(self.dropout(self.norm(hidden)))[0])


def _alpha_bar() -> Tensor:
    """Their sqrt schedule by its betas, none of which is above 0.999."""
    kept = 1 - (torch.linspace(0, 1, STEPS + 1, dtype=torch.float64) + 1e-4).sqrt()
    return (1 - (1 - kept[1:] / kept[:-1]).clamp(max=0.999)).cumprod(0)


class Step:
    """One update of theirs on ids (B, L), as their training loop does it."""

    def __init__(self, model: Theirs, ids: Tensor, dtype: torch.dtype) -> None:
        self.model, self.ids, self.dtype = model.train(), ids, dtype
        self.average = [p.detach().clone() for p in model.parameters()]
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)

    def __call__(self) -> float:
        half = self.dtype != torch.float32
        with torch.autocast(self.ids.device.type, self.dtype, enabled=half):
            loss = self.model(self.ids).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            for average, now in zip(self.average, self.model.parameters(), strict=True):
                average.mul_(AVERAGE).add_(now, alpha=1 - AVERAGE)
        return float(loss.detach())


def run(
    batch: int = 8,
    precision: str = "fp32",
    seconds: float = 60.0,
    overrides: tuple[str, ...] = (),
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Time training steps.

    Args:
        batch: Sentences a step.
        precision: fp32 or bf16.
        seconds: Time for all of them, five rounds at least.
        overrides: key=value for ours, such as a smaller network.
        json_file: Write everything here.
    """
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if precision not in dtypes or batch < 1:
        raise ConfigError(
            f"precision = {precision!r}, batch = {batch}: expected fp32 or bf16, and 1 or more"
        )
    device, about = set_up(), facts(seconds) | {"batch": batch, "precision": precision}
    with tempfile.TemporaryDirectory() as folder:
        recipes = {
            name: prepare(config, Path(folder) / str(i), (*more, *overrides))
            for i, (name, (config, more)) in enumerate(OURS.items())
        }
        trainers = {
            name: recipe.trainer(batch=batch, precision=precision, zero_stage=0)
            for name, recipe in recipes.items()
        }
        config = recipes[SAME].config
        ids = recipes[SAME].examples.take(torch.arange(batch))[0].to(device)
        words = _words(trainers[SAME].learner)
        theirs = Theirs(words, config.codec.dim, config.net, ids.shape[1]).to(device)
        tasks: dict[str, Task] = {THEIRS: Step(theirs, ids, dtypes[precision])}
        tasks |= {name: trainer.update for name, trainer in trainers.items()}
        times = interleave(tasks, seconds)
        for trainer in trainers.values():
            trainer.engine.close()
    sizes = {THEIRS: parameters(theirs)}
    sizes |= {name: parameters(trainer.learner) for name, trainer in trainers.items()}
    rows: list[dict[str, Any]] = []
    for name in (THEIRS, *OURS):
        least, typical = ratio(times[THEIRS], times[name])
        rows.append(
            {
                "step": name,
                "parameters": sizes[name],
                "seconds": min(times[name]),
                "tokens_per_s": ids.numel() / min(times[name]),
                "speed": least,
                "speed_median": typical,
            }
        )
    table = Table(
        "Training steps at Diffusion-LM's size",
        f"Batches of {batch}, {precision}, {about['threads']} thread(s), {about['clock']}; the "
        f"least of {len(times[THEIRS])} rounds, in turn. Goals: 1.3 times its tokens a second; "
        "self-conditioning at most 1.35 times the step with one pass.",
        (
            Column("step", "step"),
            Column("parameters", "parameters", ",d"),
            Column("seconds", "s", ".3f"),
            Column("tokens_per_s", "tokens/s", ".0f"),
            Column("speed", "times its speed", ".2f"),
            Column("speed_median", "(median)", ".2f"),
        ),
        rows,
    )
    table.publish(json_file, about)


def _words(learner: nn.Module) -> int:
    codec = learner.codec
    assert isinstance(codec, Embedding)
    return codec.size


if __name__ == "__main__":
    sys.exit(command(run))
