"""The trainable modules of the image panel, as a configuration names them."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from image.beside import Beside, BesideNet
from image.cascade import Small
from image.classifier import Classifier
from image.clip.learner import ClipLearner
from image.clip.network import DualEncoder
from image.codec import build_codec
from image.config import ImageConfig
from image.crops import cropped
from image.data import DataFacts
from image.data_config import DataConfig
from image.flips import flipped
from image.masked import Masked
from image.net import build_net
from image.noisy_classifier import NoisyClassifier
from image.sketch import Sketch
from shared.learner import DiffusionLearner


def build_learner(config: ImageConfig, facts: DataFacts, run: Path) -> nn.Module:
    """A fresh diffusion model, classifier, autoencoder or dual encoder, of the data that `facts`
    tells. `run` holds what a model takes from others: an autoencoder, a network to compare in."""
    autocast = torch.bfloat16 if config.train.precision == "bf16" else None
    if config.model == "autoencoder":
        return _autoencoder(config, facts, run, autocast)
    if config.model == "clip":
        towers = DualEncoder(facts.shape, facts.conditions, config.clip)
        return ClipLearner(towers, facts.levels, config.clip.drop_words, autocast)
    if config.model == "classifier" and not config.noisy:
        return Classifier(
            facts.shape,
            facts.levels,
            facts.conditions,
            several=not facts.classes,
            width=config.judge.width,
            dropout=config.judge.dropout,
            autocast=autocast,
        )
    codec = build_codec(config.codec, facts.levels, facts.shape, run)
    if config.noisy:
        return NoisyClassifier(config, facts, codec, autocast)
    beside, groups = build_beside(config, facts), config.data.condition_groups()
    channels = 0 if beside is None else beside.channels
    drop_beside = beside is not None and beside.optional
    net = build_net(
        config, codec.latent_shape, facts.conditions, channels, _load_empty(config, run)
    )
    if beside is not None:
        net, groups = BesideNet(net, beside), {**groups, **beside.groups}
    augment = _augment(config.data)
    return DiffusionLearner(
        net, codec, config.diffusion, facts.data_std, autocast, groups, beside, augment, drop_beside
    )


def _augment(config: DataConfig) -> Callable[[Tensor, Tensor], Tensor] | None:
    """What training sees in place of data (B, ...), by their keys (B,)."""
    size = config.size
    if not config.crop or size is None:
        return flipped if config.flip else None
    if not config.flip:
        return lambda data, keys: cropped(data, keys, size)
    return lambda data, keys: flipped(cropped(data, keys, size), keys)


def build_beside(config: ImageConfig, facts: DataFacts) -> Beside | None:
    """What is told beside the noisy picture, where a configuration asks for it."""
    shape, levels, optional = facts.shape, facts.levels, config.drops_beside()
    if config.sketch:
        return Sketch(shape, levels, optional)
    if config.masked:
        return Masked(shape, levels, optional)
    if config.upscale.factor == 1:
        return None
    return Small(shape, levels, config.upscale.factor, config.upscale.augment, optional)


def _load_empty(config: ImageConfig, run: Path) -> Tensor | None:
    """What a network is told where nothing is said, by a frozen text encoder."""
    if config.data.text_encoder is None:
        return None
    from image.text_encoder import load_empty  # seconds of transformers

    return load_empty(run)


def _autoencoder(
    config: ImageConfig, facts: DataFacts, run: Path, autocast: torch.dtype | None
) -> nn.Module:
    from image.autoencoder.learner import AutoencoderLearner  # seconds of diffusers
    from image.autoencoder.network import build_network, latent_shape
    from image.autoencoder.perceptual import load_perceptual

    network = build_network(config.autoencoder, facts.shape[0])
    latent_shape(network, facts.shape)  # refuses what it cannot halve
    perceptual = load_perceptual(run)
    return AutoencoderLearner(
        network, facts.levels, facts.shape, config.autoencoder, perceptual, autocast
    )
