"""A joint run as `shared.train` sees it: what it keeps, its data, its model."""

import sys
from pathlib import Path

import torch
from torch import nn

from examples.joint.config import SIDES, DataConfig, JointConfig, LatentsConfig
from examples.joint.data import Pairs, read_pairs, to_pairs
from examples.joint.latents import (
    in_latents,
    install,
    paired,
    picture_codec,
    sentence_codec,
    take_tokenizer,
)
from examples.joint.learner import JointLearner
from examples.joint.net import JointNet
from examples.joint.sides import PairDenoiser, Side
from image.data import DataFacts, measured_std, read_facts, write_facts
from shared.learner import build_schedule
from shared.levels import BYTES
from shared.pictures import first_of
from shared.task import Examples
from shared.tokenizer import FILE, Tokenizer, load_tokenizer, train_tokenizer
from text.codec import Embedding


class JointPanel:
    """Pairs of pictures and sentences. What `prepare` has read serves `examples`, too."""

    name = "joint"
    config_type = JointConfig

    def __init__(self) -> None:
        self._read: tuple[DataConfig, LatentsConfig, Path, Pairs] | None = None

    def prepare(self, config: JointConfig, run: Path) -> None:
        """Train the tokenizer, or take that of the latents, take the autoencoders, and tell what a
        model must know of the data (data.json)."""
        found = self._pairs(config, run)
        install(config, found, run)
        skipped = len(found.left_out) + found.dropped
        pictures = found.pictures
        data_std = measured_std(picture_codec(config, pictures.shape, run), pictures)
        write_facts(DataFacts(len(found), pictures.shape, BYTES, (), 0, data_std, skipped), run)
        if skipped:
            print(
                f"{config.data.name}: {skipped:,} pairs are left out: with a picture that cannot "
                f"be read, or a sentence longer than data.length = {config.data.length} tokens"
                + first_of(found.left_out),
                file=sys.stderr,
            )

    def examples(self, config: JointConfig, run: Path) -> Examples:
        """The pairs of the training split, or their latents."""
        return in_latents(config, self._pairs(config, run), read_facts(run), run)

    def learner(self, config: JointConfig, run: Path) -> nn.Module:
        """A fresh joint model."""
        return build_learner(config, read_facts(run), load_tokenizer(run / FILE), run)

    def _pairs(self, config: JointConfig, run: Path) -> Pairs:
        """The training split as rows of the run's tokenizer, which is trained if there is none."""
        data = config.data
        if self._read is None or self._read[:3] != (data, config.latents, run):
            read = read_pairs(data)
            take_tokenizer(config, run)
            if not (run / FILE).is_file():
                train_tokenizer(read.sentences, data.tokenizer, data.vocabulary).save(run / FILE)
            found = to_pairs(read, load_tokenizer(run / FILE), data)
            self._read = data, config.latents, run, found
        return self._read[3]


def build_learner(
    config: JointConfig, facts: DataFacts, tokenizer: Tokenizer, run: Path
) -> JointLearner:
    """A fresh model of pictures as `facts` tells, and of the tokenizer's words; autoencoders are
    those that the run keeps."""
    pictures = picture_codec(config, facts.shape, run)
    sentences = sentence_codec(config, len(tokenizer), run)
    prediction, weighting = config.diffusion.prediction, config.diffusion.weighting
    words = isinstance(sentences, Embedding)
    sides = (
        Side(pictures, prediction, facts.data_std, weighting),
        Side(sentences, *(("categorical", 1.0, "x0") if words else (prediction, 1.0, weighting))),
    )
    net = JointNet(
        pictures.latent_shape,
        config.patch,
        sentences.latent_shape,
        sentences.logit_channels if words else sentences.latent_shape[1],
        config.net,
        config.diffusion.self_condition,
    )
    autocast = torch.bfloat16 if config.train.precision == "bf16" else None
    denoiser = PairDenoiser(net, sides, config.diffusion.self_condition, autocast)
    codec = paired(config, (pictures, sentences), facts.shape)
    schedule = build_schedule(config.diffusion)
    if config.alone is not None:
        given_other = (0.0, 1.0) if config.alone == SIDES[0] else (1.0, 0.0)
        return JointLearner(denoiser, codec, schedule, given_other)
    return JointLearner(denoiser, codec, schedule, config.clean.shares, config.balance)


PANEL = JointPanel()
