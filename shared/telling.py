"""How a command tells its result: as JSON for machines, or as a table."""

import json
import os
from typing import Any

from rich.console import Console
from rich.table import Table


def tell(result: dict[str, Any], as_json: bool, line: str | None = None) -> None:
    """On rank 0, the result as JSON, or as a table of its numbers."""
    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        print(json.dumps(result))
    elif line is not None:
        print(line)
    else:
        table = Table(show_header=False, box=None)
        for key, value in _flat(result).items():
            table.add_row(key, f"{value:.4f}" if isinstance(value, float) else str(value))
        Console(markup=False, emoji=False).print(table)  # sentences may hold brackets


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat
