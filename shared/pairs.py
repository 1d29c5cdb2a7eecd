"""The scene world as files for both panels at once: each expresses the same scenes in its own way,
and a line of `metadata.jsonl` says what belongs together.

    00000.png, ...    what the panels write
    metadata.jsonl    {"scene": its words, "file_name": "00000.png", "text": a sentence, ...}

That is an image folder of `datasets`, or any other table with a file name.
"""

import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from shared import scene
from shared.errors import ConfigError
from shared.files import make_folder
from shared.requests import PairRequest
from shared.runs import find_panel, panel_names
from shared.scene_facts import fits

METADATA = "metadata.jsonl"

Rows = Sequence[dict[str, Any]]


def write_pairs(folder: Path, request: PairRequest) -> dict[str, Any]:
    """Write `request.n` scenes as all installed panels express them; returns what was written, for
    --json. ConfigError when there is something in the folder, or a panel cannot."""

    def express(temporary: Path) -> Rows:
        only = request.narrowed()
        every = scene.stream(request.seed, request.split)
        scenes = list(islice((each for each in every if fits(each, only)), request.n))
        rows = [{"scene": scene.spell(each)} for each in scenes]
        for name in panel_names():
            told = find_panel(name).express(scenes, request, temporary)
            rows = [row | more for row, more in zip(rows, told, strict=True)]
        return rows

    columns = list(write_folder(folder, express)[0])
    return {"folder": str(folder), "n": request.n, "split": request.split, "columns": columns}


def write_folder(folder: Path, fill: Callable[[Path], Rows]) -> Rows:
    """A new folder with what `fill` writes into the one it is given, and, as metadata, the row that
    it returns for each file. ConfigError when there is something in the folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: there is something already; name a new folder")
    rows: list[dict[str, Any]] = []

    def whole(temporary: Path) -> None:
        rows.extend(fill(temporary))
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (temporary / METADATA).write_text("".join(lines), encoding="utf-8")

    make_folder(folder, whole)
    return rows
