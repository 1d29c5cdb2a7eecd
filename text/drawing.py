"""From seeds and what is asked to rows of token ids: how either kind of model writes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from shared.codec import Codec
from shared.denoiser import Denoise
from shared.drawing import Wrap, draw
from shared.errors import ConfigError
from shared.guidance import infill
from shared.learner import DiffusionLearner
from shared.sampling import Sampling, Start
from text.ask import Ask, check_causal, check_diffusion
from text.autoencoder.codec import SentenceCodec
from text.baseline import CausalLM
from text.codec import nearness
from text.control import controlled, nearest_accepted
from text.given import Given

Look = Callable[[int, float, Tensor], None]  # step, its logsnr, the first sentence's ids (L,)


def draw_rows(
    learner: nn.Module,
    seeds: Sequence[int],
    how: Sampling,
    ask: Ask,
    look: Look | None = None,
    grid_file: Path | None = None,
    progress: bool = False,
) -> Tensor:
    """One row of ids (n, L) per seed. ConfigError for what the model cannot do."""
    if isinstance(learner, CausalLM):
        check_causal(ask, how)
        return learner.generate(seeds, how.temperature, ask.source, ask.start)
    assert isinstance(learner, DiffusionLearner)
    check_diffusion(ask, how)
    if isinstance(learner.codec, SentenceCodec) and (ask.given or ask.automata or how.clamp):
        raise ConfigError(
            "given, controls, clamp: of models whose latents are words, and this one's are whole "
            "sentences; steer it with diptych control --operator NAME=VALUE"
        )

    def watch(i: int, logsnr: float, x_t: Tensor, x0_hat: Tensor) -> None:
        assert look is not None
        look(i, logsnr, _nearest(learner, x0_hat[:1], ask)[0])

    x0 = draw(
        learner,
        seeds,
        how,
        condition=ask.source,
        start=_start(learner, ask),
        wrap=_wrap(learner, how, ask),
        watch=None if look is None else watch,
        grid_file=grid_file,
        progress=progress,
        label="sentences",
    )
    if isinstance(learner.codec, SentenceCodec):
        return learner.codec.words(x0, seeds)
    return _nearest(learner, x0, ask)


@torch.no_grad()
def _start(learner: DiffusionLearner, ask: Ask) -> Start | None:
    if ask.near is None:
        return None
    return Start(learner.codec.encode(ask.near.ids.to(_device(learner))), ask.near.time)


def _wrap(learner: DiffusionLearner, how: Sampling, ask: Ask) -> Wrap | None:
    automata, given = ask.automata, ask.given
    if automata is not None:
        return lambda _, rows: controlled(
            learner.denoiser,
            automata[rows],
            ask.control_scale,
            how.temperature,
            how.one_scale(),
            how.guidance_interval,
        )
    return None if given is None else _infill(learner.codec, given, _device(learner))


def _infill(codec: Codec, given: Given, device: torch.device) -> Wrap:
    """The given places of every sample are what is given."""

    def wrap(denoise: Denoise, rows: slice) -> Denoise:
        known = codec.encode(given.ids[None].to(device))
        return infill(denoise, known, given.known[None, :, None].to(device))

    return wrap


@torch.no_grad()
def _nearest(learner: DiffusionLearner, x0: Tensor, ask: Ask) -> Tensor:
    """x0 (n, L, ...) -> ids (n, L), the nearest that template and automata allow."""
    if ask.automata is not None:
        return nearest_accepted(learner.denoiser, x0, ask.automata[: len(x0)])
    codec, device = learner.codec, _device(learner)
    if ask.given is None:
        return codec.decode(x0.to(device)).cpu()
    allowed = ask.given.allowed.to(device)
    points = codec.encode(torch.arange(allowed.shape[1], device=device))
    return nearness(x0.to(device), points).masked_fill(~allowed, -torch.inf).argmax(-1).cpu()


def _device(learner: DiffusionLearner) -> torch.device:
    return next(learner.parameters()).device
