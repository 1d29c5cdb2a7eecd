"""From a trained model and a list of seeds to clean latents: what both pipelines call."""

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from shared import noise
from shared.denoiser import Denoise, Denoiser
from shared.errors import ConfigError
from shared.files import write_text
from shared.guidance import classifier_free
from shared.learner import DiffusionLearner
from shared.solver import Fitted, first_state, fit, for_data, prepare, run
from shared.solver.grid import Grid

FIT_SEED = 1 << 40  # beyond the seeds that samples are asked for
# evaluated step, its logsnr, x_t before it, x0_hat there; of the first chunk of samples
Watch = Callable[[int, float, Tensor, Tensor], None]
Wrap = Callable[[Denoise, slice], Denoise]


@torch.no_grad()
def draw(
    learner: DiffusionLearner,
    seeds: Sequence[int],
    steps: int = 20,
    solver: str = "dpmpp_2m",
    condition: Tensor | None = None,
    guidance: float = 1.0,
    guidance_interval: tuple[float, float] | None = None,
    temperature: float = 1.0,
    wrap: Wrap | None = None,
    watch: Watch | None = None,
    grid: Grid | None = None,
    batch: int = 64,
    progress: bool = True,
    label: str = "sampling",
    nan: str = "end",
) -> Tensor:
    """x0 (n, *latent_shape), float32, one sample per seed, in chunks of `batch`.

    condition (n, M) of ids; `guidance` is the classifier-free scale (1: the condition as learned),
    in an interval of logsnr if one is given; `temperature` divides a categorical model's logits.
    `wrap(denoise, rows)` adds more guidance for the chunk of samples `rows`, around classifier-free
    guidance. Sample i depends on its seed, not on the others. NFE: the solver's, twice that where
    guided. nan="stop" names the step of a value that is not finite. Warns when the model was
    trained without dropout of the condition and guidance is not 1. ConfigError for a temperature
    that the model cannot take.
    """
    if condition is not None and guidance != 1 and learner.drop_rate == 0:
        warnings.warn(
            f"guidance = {guidance}: this model was trained with diffusion.drop_condition = 0 and "
            "has never seen samples without a condition, from which guidance departs; train with "
            "0.1, or leave guidance at 1"
        )
    device = next(learner.parameters()).device
    shape = learner.codec.latent_shape
    model = _at_temperature(learner.denoiser, temperature)
    chosen = for_data(solver, learner.denoiser.data_std)
    plan = prepare(learner.schedule, chosen, steps, grid)  # once for all chunks
    logsnrs = [step.at.logsnr for step in plan.steps]
    chunks: list[Tensor] = []
    with Progress(console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task(label, total=plan.evaluations * -(-len(seeds) // batch))

        def advance(i: int, x_t: Tensor, x0_hat: Tensor) -> None:
            bar.advance(task)
            if watch is not None and not chunks:
                watch(i, logsnrs[i], x_t, x0_hat)

        for start in range(0, len(seeds), batch):
            rows = slice(start, min(start + batch, len(seeds)))
            some = list(seeds[rows])
            denoise = classifier_free(model, guidance, interval=guidance_interval)
            if wrap is not None:
                denoise = wrap(denoise, rows)
            x0 = run(
                plan,
                denoise,
                first_state(plan, noise.normal(some, 0, shape, device=device)),
                condition=None if condition is None else condition[rows].to(device),
                seeds=some,
                callback=advance,
                nan=nan,
            ).x
            chunks.append(x0.cpu())
    return torch.cat(chunks)


@torch.no_grad()
def fitted_grid(learner: DiffusionLearner, file: Path | None = None) -> Fitted:
    """The grid of `solver="auto"` for a model, unguided: from the file if it holds that of these
    weights, else from one run of 64 steps on 64 seeds, written there."""
    weights = [weight.detach().float().flatten()[:64].cpu() for weight in learner.parameters()]
    digest = hashlib.sha256(torch.cat(weights).numpy().tobytes()).hexdigest()
    if file is not None and file.is_file():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept.get("weights") == digest:
            return Fitted.from_json(kept["grid"])
    device, shape = next(learner.parameters()).device, learner.codec.latent_shape
    start = noise.normal(range(FIT_SEED, FIT_SEED + 64), 0, shape, device=device)
    grid = fit(learner.denoiser, start, learner.schedule, data_std=learner.denoiser.data_std)
    if file is not None:
        write_text(file, json.dumps({"weights": digest, "grid": grid.to_json()}))
    return grid


def _at_temperature(denoiser: Denoiser, temperature: float) -> Denoise:
    if temperature == 1:
        return denoiser
    try:
        return denoiser.tempered(temperature)
    except ValueError as error:
        raise ConfigError(str(error)) from None
