"""From the autoencoder that a configuration names to the copy that the run keeps."""

from pathlib import Path

import torch

from image.autoencoder.codec import FOLDER, measure, write_codec
from image.autoencoder.learner import AutoencoderLearner
from image.autoencoder.network import Network, latent_shape, load_network
from image.codec import Pixels
from image.config import CodecConfig, ImageConfig
from image.data import Pictures, read_facts
from shared.errors import ConfigError
from shared.files import make_folder
from shared.runs import load_learner, open_run
from shared.tables import expand


def install(config: CodecConfig, pictures: Pictures, run: Path, key: str = "codec.run") -> None:
    """Copy the autoencoder of a configuration into a run folder and measure it, once. `key` is what
    users call config.run.

    ConfigError for one of other channels, levels or sides; CheckpointError when it is not there.
    """
    if (run / FOLDER).is_dir():
        return
    if config.run is not None:
        source, (network, likely) = config.run, _trained(config.run, pictures.levels, key)
    else:
        assert config.pretrained is not None
        source, likely = config.pretrained, False
        network = load_network(Path(expand(source, "codec.pretrained")))
    latent_shape(network, pictures.shape)
    x = Pixels(pictures.levels, pictures.shape).encode(pictures.some())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    measured = measure(network, x, source, config.sample, likely, device)
    make_folder(run / FOLDER, lambda folder: write_codec(network, measured, folder))


def _trained(named: str, levels: int, key: str) -> tuple[Network, bool]:
    """The network of a run of ours, and whether it was trained on a likelihood alone."""
    folder = Path(expand(named, key))
    config = open_run(folder).config
    if not isinstance(config, ImageConfig) or config.model != "autoencoder":
        raise ConfigError(f"{key} = {named}: expected a run of model: autoencoder")
    facts = read_facts(folder)
    if facts.levels != levels:
        raise ConfigError(
            f"{key} = {named}: trained on pictures of {facts.levels} levels, these have "
            f"{levels}; train one on this data"
        )
    learner = load_learner(folder)
    assert isinstance(learner, AutoencoderLearner)
    settings = config.autoencoder
    return learner.network, settings.perceptual is None and not settings.adversarial.weight
