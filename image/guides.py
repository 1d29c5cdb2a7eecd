"""What guides a run: whether there is anything to guide towards, and other runs, with what must
agree before their estimates may be mixed."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from image.beside import Beside, BesidePictures
from image.config import CodecConfig, ImageConfig
from image.data import DataFacts, read_facts
from image.data_config import DataConfig
from image.noisy_classifier import NoisyClassifier
from shared.codec import Codec
from shared.errors import ConfigError
from shared.groups import Groups, check_groups
from shared.learner import DiffusionLearner
from shared.runs import load_learner, open_run
from shared.sampling import Sampling


def check_guided(
    how: Sampling,
    groups: Groups,
    beside: Beside | None,
    condition: Tensor | None,
    negative: Tensor | None,
    low: BesidePictures | None,
) -> None:
    """ConfigError where a model of these groups and `beside` is given nothing to guide towards, or
    to depart from; the rest as `image.pipeline.Pipeline.latents` takes it."""
    scales = how.guidance if isinstance(how.guidance, dict) else {}
    own = "" if beside is None else beside.name
    optional = beside is not None and beside.optional
    if own in scales and not optional:
        raise ConfigError(
            f"guidance: {own}: this model has seen one beside every picture, and does not know "
            f"what to depart from; train with diffusion.drop_condition={{{own}: 0.1}}, or "
            "leave it out"
        )
    check_groups("guidance", scales, groups)
    shown = optional and low is not None and scales.keys() <= {own}
    free = condition is None and not shown and how.guide is None and negative is None
    if free and how.guidance not in (0, 1):
        raise ConfigError(
            f"guidance = {how.guidance}: without a class or prompt there is nothing to guide "
            "towards; name one, or leave guidance at 1"
        )
    if negative is not None and (how.guidance == 1 or how.guide is not None or scales):
        by = "another model" if how.guide else "groups" if scales else "nothing"
        raise ConfigError(
            f"negative_prompt: guidance departs from it, and this is guided by {by}; give "
            "guidance = 3 or another scale, or leave it out"
        )


def load_guide(
    run: Path,
    facts: DataFacts,
    device: torch.device,
    beside: Beside | None = None,
    data: DataConfig | None = None,
) -> DiffusionLearner:
    """The weaker model of a run, for autoguidance of one of these facts, with the same `beside` the
    noisy picture; `data` None for one that others trained. ConfigError when it does not draw, or
    has other conditions."""
    weaker = load_learner(run)
    if not isinstance(weaker, DiffusionLearner):
        raise ConfigError(f"guide = {run}: it draws nothing; use a run of model: diffusion")
    theirs = read_facts(run)
    if theirs.text_encoder != facts.text_encoder:
        raise ConfigError(
            f"guide = {run}: its captions are read by another text encoder; expected a run with "
            "the same data.text_encoder"
        )
    conditions = theirs.conditions
    if conditions != facts.conditions:
        raise ConfigError(
            f"guide = {run}: a model of {conditions} conditions, this one has {facts.conditions}; "
            "expected a run of the same data"
        )
    if open_run(run).config.data.layout_size() != (None if data is None else data.layout_size()):
        raise ConfigError(
            f"guide = {run}: one of the two models reads a layout, or they read layouts of two "
            "sizes; expected a run of the same data"
        )
    if _reads(weaker.beside) != _reads(beside):
        raise ConfigError(
            f"guide = {run}: the two models do not read the same beside the noisy picture; "
            "expected a run with the same upscale.factor, sketch and masked, named or not in "
            "diffusion.drop_condition"
        )
    weaker.denoiser.autocast = None
    return weaker.to(device)


def _reads(beside: nn.Module | None) -> tuple[str, tuple[int, int, int], bool] | None:
    """What a model is shown beside the noisy picture, its shape, and whether there may be none."""
    return (beside.name, beside.shape, beside.optional) if isinstance(beside, Beside) else None


def load_classifier(
    run: Path, facts: DataFacts, config: ImageConfig | None, codec: Codec, device: torch.device
) -> tuple[NoisyClassifier, Sequence[str]]:
    """The classifier of a run and the names of its classes, for a model of these facts, `config`
    None for one that others trained. ConfigError when it has not seen noisy latents of these data.
    """
    theirs = open_run(run).config
    if not isinstance(theirs, ImageConfig) or not theirs.noisy:
        raise ConfigError(
            f"classifier = {run}: expected a run of a classifier of noisy pictures, such as "
            "`diptych train image/digits_classifier` makes"
        )
    seen = read_facts(run)
    if config is not None and config.data.name != theirs.data.name:
        raise ConfigError(
            f"classifier = {run}: learned from data.name = {theirs.data.name!r}, the model from "
            f"{config.data.name!r}; expected the same data"
        )
    known = (facts.shape, facts.levels, facts.classes or seen.classes)
    if (seen.shape, seen.levels, seen.classes) != known:
        raise ConfigError(
            f"classifier = {run}: learned from pictures {seen.shape} of {seen.levels} levels in "
            f"{len(seen.classes)} classes, the model draws {facts.shape} of {facts.levels} in "
            f"{len(facts.classes)}; expected the same data"
        )
    model = load_learner(run)
    assert isinstance(model, NoisyClassifier)
    ours = CodecConfig() if config is None else config.codec
    if type(model.codec) is not type(codec) or theirs.codec != ours:
        raise ConfigError(
            f"classifier = {run}: sees latents of codec.kind = {theirs.codec.kind!r}, the model "
            "draws others; train it with the codec of the model"
        )
    model.autocast = None
    return model.to(device), seen.classes
