"""Finding a configuration: a YAML file, or one packaged with a panel (`image/digits`)."""

import difflib
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from shared.errors import ConfigError
from shared.runs import find_panel, panel_names
from shared.schema import override, read_yaml, validate
from shared.task import Panel


def packaged_configs(panel: str) -> list[str]:
    """The names of a panel's packaged configurations, for example image/digits."""
    folder = files(panel) / "configs"
    if not folder.is_dir():
        return []
    names = [entry.name for entry in folder.iterdir()]
    return sorted(f"{panel}/{n.removesuffix('.yaml')}" for n in names if n.endswith(".yaml"))


def load_config(source: str, assignments: Sequence[str]) -> tuple[str, Panel, Any, Path | None]:
    """(name, panel, validated configuration, run folder if `run=FOLDER` is among assignments).

    ConfigError for an unknown source, key or value, with the nearest known one.
    """
    folders = [a.removeprefix("run=") for a in assignments if a.startswith("run=")]
    others = [a for a in assignments if not a.startswith("run=")]
    values = override(_read(source), others)
    if "panel" not in values:
        raise ConfigError(f"{source}: no `panel:` key; expected one of {', '.join(panel_names())}")
    panel = find_panel(str(values["panel"]))
    config = validate(panel.config_type, values, source)
    name = (
        source.removesuffix(".yaml").replace("/", "-")
        if _is_packaged(source)
        else Path(source).stem
    )
    return name, panel, config, Path(folders[-1]) if folders else None


def _is_packaged(source: str) -> bool:
    return source in {name for panel in panel_names() for name in packaged_configs(panel)}


def _read(source: str) -> dict[str, Any]:
    if _is_packaged(source):
        panel, name = source.split("/", 1)
        with as_file(files(panel) / "configs" / f"{name}.yaml") as path:
            return read_yaml(path)
    if Path(source).is_file():
        return read_yaml(Path(source))
    known = [name for panel in panel_names() for name in packaged_configs(panel)]
    near = difflib.get_close_matches(source, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"packaged ones: {', '.join(known)}"
    raise ConfigError(f"{source}: neither a YAML file nor a packaged configuration; {hint}")
