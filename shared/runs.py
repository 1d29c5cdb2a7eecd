"""Run folders: how one begins, is recognised, goes on, and is read back for sampling.

config.yaml      the complete configuration
log.jsonl        one row per interval: step, loss, lr, speed
tensorboard/     the same as event files, with train.tensorboard
checkpoints/     see shared/train/checkpoint.py
samples/         what `diptych sample` wrote
grid.json        the grid of `--solver auto`, see shared/solver/fitted.py
evaluation.json  what `diptych evaluate` measured
frontier.json    what `diptych evaluate --frontier` measured; frontier.png draws it
"""

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from shared.errors import CheckpointError, ConfigError
from shared.files import clear_temporary, make_folder
from shared.schema import read_yaml, validate, write_yaml
from shared.task import Panel, RunConfig, Trainable
from shared.train import checkpoint
from shared.train.precision import faster_precision

GRID = "grid.json"
# What may differ when a run goes on; everything else would make it another run.
FREE = {
    "data.cache",
    "train.steps",
    "train.accumulation",
    "train.zero_stage",
    "train.compile",
    "train.channels_last",
    "train.log_every",
    "train.tensorboard",
    "train.save_every",
    "train.keep",
}


@dataclass(frozen=True)
class Run:
    """An existing run folder with its panel and configuration."""

    folder: Path
    panel: Panel
    config: Any


def panel_names() -> list[str]:
    """The installed panels, from the entry points `diptych.panels`; none is imported."""
    return sorted(entry_points(group="diptych.panels").names)


def find_panel(name: str) -> Panel:
    """A panel by name; ConfigError lists those there are."""
    if name not in panel_names():
        raise ConfigError(f"panel = {name!r}: expected one of {', '.join(panel_names())}")
    return entry_points(group="diptych.panels")[name].load()


def open_run(folder: Path) -> Run:
    """An existing run. CheckpointError when the folder is not one or its config does not read."""
    path = folder / "config.yaml"
    if not path.is_file():
        what = "no such folder" if not folder.exists() else "not a run folder: no config.yaml in it"
        raise CheckpointError(f"{folder}: {what}; give the folder that `diptych train` wrote")
    try:
        panel = find_panel(str(read_yaml(path).get("panel")))
    except ConfigError as error:
        raise CheckpointError(f"{folder}: its config.yaml is not usable: {error}") from None
    return Run(folder, panel, read_config(folder, panel))


def panel_of(folder: Path) -> Panel:
    """The panel of a run, or, of a folder that another library wrote, the one that reads it.
    CheckpointError when there is none."""
    if folder.is_dir() and not (folder / "config.yaml").is_file():
        for name in panel_names():
            if find_panel(name).reads(folder):
                return find_panel(name)
    return open_run(folder).panel


def read_config(folder: Path, panel: Trainable) -> Any:
    """The configuration of a run folder. CheckpointError when it does not read."""
    try:
        return validate(panel.config_type, read_yaml(folder / "config.yaml"), "config.yaml")
    except ConfigError as error:
        raise CheckpointError(f"{folder}: its config.yaml is not usable: {error}") from None


def begin(config: RunConfig, folder: Path, panel: Trainable) -> None:
    """Create the run folder, or check that `config` may go on with the run it holds. Of processes
    that write this folder the caller is the only one.

    Its config.yaml names the precision that `auto` stands for on the machine that began the run.
    ConfigError when the folder holds something else, or a run with another configuration.
    """
    path = folder / "config.yaml"
    clear_temporary(path)  # of a run that was killed as it began
    if path.is_file():
        begun = read_config(folder, panel)
        config = _with_precision(config, lambda: begun.train.precision)
        old, new = flatten(begun), flatten(config)
        changed = [k for k in sorted(old | new) if old.get(k) != new.get(k) and k not in FREE]
        if changed:
            lines = "\n".join(f"  {k}: was {old.get(k)}, now {new.get(k)}" for k in changed)
            raise ConfigError(
                f"{folder} holds a run with another configuration:\n{lines}\n"
                "Choose another folder with run=FOLDER, or delete this one"
            )
    elif folder.exists() and any(p.name != ".lock" for p in folder.iterdir()):
        raise ConfigError(
            f"{folder} exists and is not a run folder: choose another with run=FOLDER"
        )
    else:
        config = _with_precision(config, faster_precision)
    folder.mkdir(parents=True, exist_ok=True)
    write_yaml(config, path)


def _with_precision(config: Any, find: Callable[[], str]) -> Any:
    """The configuration with what `find` gives for the precision `auto`."""
    if config.train.precision != "auto":
        return config
    return dataclasses.replace(config, train=dataclasses.replace(config.train, precision=find()))


def load_learner(folder: Path, weights: str = "ema") -> nn.Module:
    """The trained module of a run, in eval mode, from its newest valid checkpoint.

    weights: "ema" (the moving average) or "model" (the raw ones).
    """
    run = open_run(folder)
    return trained(folder, run.panel, run.config, weights)


def trained(folder: Path, panel: Trainable, config: Any, weights: str = "ema") -> nn.Module:
    """The same of a run whose panel and configuration are known."""
    found = checkpoint.newest(folder)
    if found is None:
        raise CheckpointError(
            f"{folder}: no checkpoint yet; train the run first: diptych train CONFIG run={folder}"
        )
    with torch.random.fork_rng(devices=[]):
        learner = panel.learner(config, folder)
    checkpoint.assign(learner.state_dict(), checkpoint.load(found[0], weights), str(found[0]))
    retime = getattr(learner, "retime", None)
    if retime is not None:
        retime()
    if torch.cuda.is_available():
        learner.cuda()
    return learner.eval()


def copy_run(source: Path, target: Path) -> None:
    """What sampling needs of a run, in another folder: its files and its newest valid checkpoint.
    CheckpointError when it has none. `target` is whole or not there."""
    found = checkpoint.newest(source)
    if found is None:
        raise CheckpointError(f"{source}: no checkpoint yet; train this run first")

    def fill(folder: Path) -> None:
        for name in (*source.glob("*.json"), *source.glob("*.model")):
            shutil.copy2(name, folder)
        shutil.copy2(source / "config.yaml", folder)
        shutil.copytree(found[0], folder / "checkpoints" / found[0].name)

    make_folder(target, fill)


def flatten(config: Any) -> dict[str, Any]:
    """A configuration as {dotted key: value}."""

    def walk(values: dict[str, Any], prefix: str) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, value in values.items():
            if isinstance(value, dict):
                flat |= walk(cast(dict[str, Any], value), f"{prefix}{key}.")
            else:
                flat[prefix + key] = value
        return flat

    return walk(dataclasses.asdict(config), "")
