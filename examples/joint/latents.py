"""The codecs of both sides, and their data in the latents of autoencoders that a run keeps:

    RUN/image/autoencoder/, latents/      of pictures, as `image.autoencoder` keeps them
    RUN/text/autoencoder/, latents.json   of sentences, as `text.autoencoder.codec` does

A side without an autoencoder is pixels, or learned points of words.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from examples.joint.config import MOST_WORDS, SIDES, JointConfig
from examples.joint.data import Pairs
from examples.joint.sides import PairCodec
from image.codec import Pixels, build_codec
from image.config import CodecConfig
from image.data import DataFacts
from shared.codec import Codec
from shared.errors import ConfigError
from shared.levels import BYTES
from shared.tokenizer import FILE, load_tokenizer
from text.autoencoder.codec import MEASURED, load_codec
from text.autoencoder.install import measure, take
from text.codec import Embedding
from text.data import Rows
from text.operators.data import latent_rows

IMAGE, TEXT = SIDES  # folders of a run


def take_tokenizer(config: JointConfig, run: Path) -> None:
    """The autoencoder of sentences, if there is one, and its tokenizer, which is then the run's.
    Errors as `text.autoencoder.install.take`; ConfigError for more words than rows can hold."""
    named = config.latents.text
    if named is None:
        return
    if not (run / TEXT / FILE).is_file():
        take(named, config.data.length, run / TEXT, "latents.text")
    words = len(load_tokenizer(run / TEXT / FILE))
    if words > MOST_WORDS:
        raise ConfigError(
            f"latents.text = {named}: its tokenizer has {words:,} ids, expected at most "
            f"{MOST_WORDS:,}; train one with a smaller data.vocabulary"
        )
    if not (run / FILE).is_file():
        shutil.copy2(run / TEXT / FILE, run / FILE)


def install(config: JointConfig, pairs: Pairs, run: Path) -> None:
    """Copy and measure the autoencoders that are not there yet. Errors as those of the panels."""
    if config.latents.image is not None:
        from image.autoencoder.install import install as install_pictures  # seconds of diffusers

        install_pictures(_kept(config), pairs.pictures, run / IMAGE, "latents.image")
    if config.latents.text is not None and not (run / TEXT / MEASURED).is_file():
        measure(config.latents.text, pairs.ids.long(), run / TEXT)


def picture_codec(config: JointConfig, shape: tuple[int, int, int], run: Path) -> Codec:
    """Pictures (C, H, W) <-> x0."""
    if config.latents.image is None:
        return Pixels(BYTES, shape)
    return build_codec(_kept(config), BYTES, shape, run / IMAGE)


def sentence_codec(config: JointConfig, words: int, run: Path) -> Codec:
    """Rows of so many words <-> x0."""
    if config.latents.text is None:
        return Embedding(words, config.data.length, config.embedding)
    return load_codec(run / TEXT)


def in_latents(config: JointConfig, pairs: Pairs, facts: DataFacts, run: Path) -> Pairs:
    """The same pairs, encoded once where a side has an autoencoder. A collective."""
    images, ids = pairs.images, pairs.ids
    if config.latents.image is not None:
        from image.autoencoder.cache import cached_latents
        from image.autoencoder.codec import LatentCodec

        codec = picture_codec(config, facts.shape, run)
        assert isinstance(codec, LatentCodec)
        images = cached_latents(codec, lambda: pairs.pictures, len(pairs), run / IMAGE).moments
    if config.latents.text is not None:
        ids = latent_rows(load_codec(run / TEXT), Rows(pairs.ids.long(), None, 0)).x0
    return replace(pairs, images=images, ids=ids)


def paired(
    config: JointConfig, codecs: tuple[Codec, Codec], shape: tuple[int, int, int]
) -> PairCodec:
    """Both codecs, of pictures (C, H, W), for the pairs that training sees."""
    encoded = config.latents.image is not None, config.latents.text is not None
    shapes: list[tuple[int, ...]] = [shape, (config.data.length,)]
    for which, codec in enumerate(codecs):
        if encoded[which]:
            shapes[which] = codec.latent_shape
    return PairCodec(codecs, tuple(shapes), encoded)


def _kept(config: JointConfig) -> CodecConfig:
    return CodecConfig(kind="autoencoder", run=config.latents.image)
