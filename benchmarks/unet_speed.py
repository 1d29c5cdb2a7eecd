"""Training a U-Net: the suite's step beside diffusers' own network in a plain loop, and what the
layout of convolutions and torch.compile change for both.
"""

import shutil
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import nn

from benchmarks.measure import Task, interleave, ratio
from benchmarks.recipe import Recipe, parameters
from benchmarks.tables import Column, Table
from shared.levels import signed
from shared.train.layout import channels_last
from shared.train.loop import compile_blocks

BARE = "diffusers"


def unet(recipes: list[Recipe], seconds: float) -> Table:
    """Steps of recipes with a U-Net, fp32 and AdamW, all in one process and in turn."""
    rows: list[dict[str, Any]] = []
    for recipe in recipes:
        peer = _peer(recipe)
        if peer is None:
            continue
        tasks, closing = _tasks(recipe)
        times = interleave(tasks, seconds)
        for close in closing:
            close()
        for name, spent in times.items():
            least, middle = ratio(spent, times[BARE])
            own = recipe.learner(recipe.config) if name.startswith("ours") else peer
            rows.append(
                {
                    "recipe": recipe.name,
                    "step": name,
                    "parameters": parameters(own),
                    "batch": recipe.config.train.batch,
                    "rounds": len(spent),
                    "ms": 1e3 * min(spent),
                    "ms_median": 1e3 * median(spent),
                    "ratio": least,
                    "ratio_median": middle,
                }
            )
    return Table(
        "U-Net",
        "Training steps in fp32 with AdamW, interleaved in one process, over that of `UNet2DModel` "
        "in a plain loop: noise by its scheduler, mean squared error, backward pass, clipping, "
        "AdamW. Ours draws data, times and noise by key and keeps a moving average besides.",
        (
            Column("recipe", "recipe"),
            Column("step", "step"),
            Column("parameters", "parameters", ",d"),
            Column("batch", "batch"),
            Column("rounds", "rounds"),
            Column("ratio", "ratio of best", ".2f"),
            Column("ratio_median", "median ratio", ".2f"),
        ),
        rows,
    )


def _tasks(recipe: Recipe) -> tuple[dict[str, Task], list[Callable[[], None]]]:
    """Steps by name, and what ends those of ours."""
    variants: dict[str, dict[str, bool]] = {"": {}, ", channels last": {"channels_last": True}}
    if shutil.which("g++"):
        variants[", compiled"] = {"compile": True}
    tasks: dict[str, Task] = {}
    closing: list[Callable[[], None]] = []
    for said, changes in variants.items():
        peer = _peer(recipe)
        assert peer is not None
        if "channels_last" in changes:
            channels_last(peer)
        if "compile" in changes:
            compile_blocks(peer)
        tasks[BARE + said] = _plain_step(peer, recipe)
        trainer = recipe.trainer(optimizer="adamw", precision="fp32", zero_stage=0, **changes)
        closing.append(trainer.engine.close)
        tasks["ours" + said] = trainer.update
    return tasks, closing


def _peer(recipe: Recipe) -> UNet2DModel | None:
    """diffusers' network of the same blocks, with its own embedding of as many classes; None for a
    recipe without a U-Net."""
    net: Any = recipe.learner(recipe.config).denoiser.net
    trunk = getattr(net, "trunk", None)
    if not isinstance(trunk, UNet2DModel):
        return None
    given: dict[str, Any] = {k: v for k, v in trunk.config.items() if not k.startswith("_")}
    if net.condition is not None:
        given |= {"class_embed_type": None, "num_class_embeds": net.condition.num_embeddings}
    return UNet2DModel(**given)


def _plain_step(peer: UNet2DModel, recipe: Recipe) -> Task:
    """A step as diffusers' example of unconditional training makes it."""
    train = recipe.config.train
    scheduler: Any = DDPMScheduler()
    optimizer = torch.optim.AdamW(peer.parameters(), lr=train.lr, betas=train.betas, fused=True)
    peer.train()

    def update() -> None:
        rows = torch.randint(len(recipe.examples), (train.batch,))
        data, condition = recipe.examples.take(rows)
        x0 = signed(data)
        eps = torch.randn_like(x0)
        times = torch.randint(1000, (train.batch,))
        ids = None if condition is None else condition[:, 0]
        out = peer(scheduler.add_noise(x0, eps, times), times, ids).sample
        F.mse_loss(out, eps).backward()
        nn.utils.clip_grad_norm_(peer.parameters(), train.clip)
        optimizer.step()
        optimizer.zero_grad()

    return update
