"""From seeds and what is asked to rows of token ids: how either kind of model writes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from shared.codec import Bits, Codec
from shared.denoiser import Denoise
from shared.drawing import Wrap, draw, warn_of_undropped
from shared.errors import ConfigError
from shared.guidance import infill
from shared.learner import DiffusionLearner
from shared.sampling import Sampling, Start
from text.ask import Ask, check_causal, check_diffusion
from text.autoencoder.codec import SentenceCodec
from text.baseline import CausalLM
from text.codec import Embedding, Ended, nearness
from text.control import controlled, nearest_accepted, possible_lengths
from text.lengths import Lengths, count, limited, tell
from text.template import Template
from text.template import possible_lengths as lengths_of_template

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
        look(i, logsnr, _nearest(learner, x0_hat[:1], ask, lengths)[0])

    lengths = _lengths(learner, seeds, ask)
    condition, negative = _told(learner, how, ask, lengths)
    x0 = draw(
        learner,
        seeds,
        how,
        condition=condition,
        negative=negative,
        start=_start(learner, ask),
        wrap=_wrap(learner, how, ask, lengths, negative),
        watch=None if look is None else watch,
        grid_file=grid_file,
        progress=progress,
        label="sentences",
    )
    if isinstance(learner.codec, SentenceCodec):
        return learner.codec.words(x0, seeds)
    return _nearest(learner, x0, ask, lengths)


def _lengths(learner: DiffusionLearner, seeds: Sequence[int], ask: Ask) -> Tensor | None:
    """How many tokens each sentence has (n,), of a model that is told: as asked, or as what it is
    to vary, where all else that is asked allows it, or drawn. ConfigError for what cannot be."""
    if not isinstance(learner.beside, Lengths):
        if ask.length is not None:
            raise ConfigError(
                f"length = {ask.length}: this model writes the end of a sentence itself; train "
                "with codec.explicit_length=true, or guide it: diptych control RUN length=N"
            )
        return None
    places = learner.codec.latent_shape[0]
    possible = torch.arange(places).expand(len(seeds), -1) > 0
    if ask.automata is not None:
        possible = possible & possible_lengths(ask.automata, places)
    if ask.given is not None:
        possible = possible & lengths_of_template(ask.given)
    if ask.length is not None:
        if not 0 < ask.length < places or not possible[:, ask.length].all():
            raise ConfigError(
                f"length = {ask.length}: expected 1 to {places - 1} tokens, and what else is asked "
                "for to fit them"
            )
        return torch.full((len(seeds),), ask.length)
    drawn = learner.beside.draw(seeds, ask.source, possible)
    if ask.near is None:
        return drawn
    own = count(ask.near.ids).clamp(max=places - 1)
    return torch.where(possible.gather(1, own[:, None]).flatten(), own, drawn)


def _told(
    learner: DiffusionLearner, how: Sampling, ask: Ask, lengths: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The condition as the network reads it, and what guidance departs from: the same without the
    source, where that is not just no condition."""
    if lengths is None or ask.source is None or not how.guided:
        return ask.source if lengths is None else tell(lengths, ask.source), None
    warn_of_undropped(learner, how.guidance)
    return tell(lengths, ask.source), tell(lengths, torch.zeros_like(ask.source))


@torch.no_grad()
def _start(learner: DiffusionLearner, ask: Ask) -> Start | None:
    if ask.near is None:
        return None
    return Start(learner.codec.encode(ask.near.ids.to(_device(learner))), ask.near.time)


def _wrap(
    learner: DiffusionLearner,
    how: Sampling,
    ask: Ask,
    lengths: Tensor | None,
    negative: Tensor | None,
) -> Wrap | None:
    automata, given = ask.automata, ask.given
    if automata is not None:
        return lambda _, rows: controlled(
            learner.denoiser,
            automata[rows],
            ask.control_scale,
            how.temperature,
            how.one_scale(),
            how.guidance_interval,
            None if lengths is None else lengths[rows].to(_device(learner)),
            None if negative is None else negative[rows].to(_device(learner)),
        )
    return None if given is None else _infill(learner.codec, given, _device(learner))


def _infill(codec: Codec, given: Template, device: torch.device) -> Wrap:
    """The given places of every sample are what is given."""

    def wrap(denoise: Denoise, rows: slice) -> Denoise:
        known = codec.encode(given.ids[None].to(device))
        return infill(denoise, known, given.known[None, :, None].to(device))

    return wrap


@torch.no_grad()
def _nearest(learner: DiffusionLearner, x0: Tensor, ask: Ask, lengths: Tensor | None) -> Tensor:
    """x0 (n, L, ...) -> ids (n, L), the nearest that template, automata and lengths allow."""
    if lengths is not None:
        lengths = lengths[: len(x0)]
    if ask.automata is not None:
        return nearest_accepted(learner.denoiser, x0, ask.automata[: len(x0)], lengths)
    codec, device = learner.codec, _device(learner)
    if ask.given is None and lengths is None:
        return codec.decode(x0.to(device)).cpu()
    assert isinstance(codec, (Bits, Embedding, Ended))
    points = codec.encode(torch.arange(codec.size, device=device))
    scores = nearness(x0.to(device), points)
    if ask.given is not None:
        scores = scores.masked_fill(~ask.given.allowed.to(device), -torch.inf)
    if lengths is not None:
        scores = limited(scores, lengths)
    return scores.argmax(-1).cpu()


def _device(learner: DiffusionLearner) -> torch.device:
    return next(learner.parameters()).device
