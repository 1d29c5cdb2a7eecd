"""From the run that a configuration names to the codec that a run keeps."""

import dataclasses
import hashlib
import json
import shutil
import warnings
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from shared.errors import CheckpointError, ConfigError
from shared.runs import copy_run, load_learner, open_run
from shared.tables import expand
from shared.tokenizer import FILE, load_tokenizer
from text.autoencoder.codec import FOLDER, MEASURED, Measured, read_measured, write_measured
from text.autoencoder.health import Health, examine, posteriors
from text.autoencoder.learner import AutoencoderLearner
from text.autoencoder.network import SentenceNetwork
from text.config import TextConfig
from text.data import fixed_order, read_corpus, to_rows

MOST = 4096  # sentences that shift and std are measured on


def install(config: TextConfig, run: Path) -> None:
    """Copy the autoencoder of a configuration and its tokenizer into a run folder, and measure it
    on the training sentences. Once. As `take` and `measure`; ConfigError for one whose tokenizer
    lacks words of the sources.
    """
    if (run / MEASURED).is_file():
        return
    named, data = config.codec.run, config.data
    assert named is not None
    take(named, data.length, run)
    if config.model == "diffusion":
        _check_sources(config, run)
    corpus = read_corpus(dataclasses.replace(data, source=None, label_column=None))
    measure(named, to_rows(corpus, load_tokenizer(run / FILE), data).ids, run)


def take(named: str, length: int, run: Path, key: str = "codec.run") -> None:
    """Copy the autoencoder of a run, or the one whose latents a run has taken before, and its
    tokenizer into a folder, for sentences of `length` tokens. `key` is what users call it.

    ConfigError for a run that has no latents or shorter sentences; CheckpointError when it is not
    there.
    """
    source = Path(expand(named, key))
    found = open_run(source).config
    if not isinstance(found, TextConfig) or not _has_latents(found):
        raise ConfigError(
            f"{key} = {named}: expected a text run of model: autoencoder, or one of "
            "codec.kind: sentence"
        )
    if found.data.length < length:
        raise ConfigError(
            f"data.length = {length}: the autoencoder {named} reads {found.data.length} tokens; "
            f"set data.length={found.data.length} or less"
        )
    shutil.rmtree(run / FOLDER, ignore_errors=True)  # of a run that was not measured to its end
    copy_run(source if found.model == "autoencoder" else source / FOLDER, run / FOLDER)
    load_tokenizer(run / FOLDER / FILE)
    shutil.copy2(run / FOLDER / FILE, run / FILE)


def measure(named: str, ids: Tensor, run: Path) -> None:
    """Write what is measured of the autoencoder that `take` has copied on rows of ids (N, L), or
    the measures of the run that has taken its latents before.

    CheckpointError when it has collapsed. Warns when its decoder ignores the latents.
    """
    source = Path(expand(named, "codec.run"))
    taken = (source / MEASURED).is_file()
    measured = read_measured(source) if taken else _measured(named, ids, run)
    check_health(measured.health, named)
    write_measured(dataclasses.replace(measured, source=named), run)


def check_health(health: Health, name: str) -> None:
    """CheckpointError for collapsed latents; warns when the decoder ignores them."""
    if health.collapsed:
        raise CheckpointError(
            f"{name}: posterior collapse, its latents say nothing of a sentence ({health.told()}); "
            "train it with a smaller autoencoder.beta, a larger autoencoder.free_bits or "
            "autoencoder.plain, or for longer"
        )
    if health.ignored:
        warnings.warn(
            f"{name}: its decoder ignores the latents ({health.told()}): what is drawn from them "
            "will be any sentence; train it for longer, or with a smaller autoencoder.beta"
        )


def _has_latents(config: TextConfig) -> bool:
    return config.model == "autoencoder" or config.codec.kind == "sentence"


def _check_sources(config: TextConfig, run: Path) -> None:
    """ConfigError when the tokenizer of the latents lacks words of what sentences are written from,
    unless it has learned its words from these sources."""
    learned, asked = open_run(run / FOLDER).config, config.data
    assert isinstance(learned, TextConfig)
    of_sources = [(d.name, d.source, d.source_signs) for d in (learned.data, asked)]
    sources = read_corpus(asked).sources
    if sources is None or of_sources[0] == of_sources[1]:
        return
    tokenizer = load_tokenizer(run / FILE)
    words = Counter(word for source in sources for word in source.split())
    unknown = [word for word, _ in words.most_common() if tokenizer.unknown(word)]
    if unknown:
        raise ConfigError(
            f"data.source = {asked.source!r}: the tokenizer of codec.run = {config.codec.run} does "
            f"not know {len(unknown):,} of the {len(words):,} words of the sources, such as "
            f"{', '.join(map(repr, unknown[:3]))}, so no prompt could say them; train that "
            "autoencoder with the same data.name, data.source and data.source_signs, too, for its "
            "tokenizer to learn them"
        )


def _measured(named: str, ids: Tensor, run: Path) -> Measured:
    learner = load_learner(run / FOLDER)
    assert isinstance(learner, AutoencoderLearner)
    network, device = learner.network, next(learner.parameters()).device
    some = ids[fixed_order(len(ids))[:MOST]].to(device)
    mean = posteriors(network, some)[0].double()
    shift = mean.mean(0)
    std = float((mean - shift).square().mean().sqrt())
    health, digest = examine(network, some), _digest(network, shift, std)
    return Measured(named, len(some), shift.flatten().tolist(), max(std, 1e-12), digest, health)


def _digest(network: SentenceNetwork, shift: Tensor, std: float) -> str:
    found = hashlib.sha256(json.dumps([shift.flatten().tolist(), std]).encode())
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().float().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
