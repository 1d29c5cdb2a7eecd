"""One table, shown on a terminal or as Markdown: numbers are formatted once and never retyped."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from shared.files import write_text

WIDTH = 180  # of tables that go to a file or a pipe, which have none of their own


@dataclass(frozen=True)
class Column:
    """A key of the rows, its heading, and how its values are written."""

    key: str
    heading: str
    form: str = ""

    def text(self, row: dict[str, Any]) -> str:
        value = row.get(self.key)
        return "-" if value is None else format(value, self.form)


@dataclass(frozen=True)
class Table:
    """Rows of numbers under a title, with a note on how they were measured. A column that says
    nothing of any row is left out."""

    title: str
    note: str
    columns: tuple[Column, ...]
    rows: list[dict[str, Any]]

    @property
    def shown(self) -> list[Column]:
        """The columns that are not left out."""
        said = [c for c in self.columns if any(row.get(c.key) is not None for row in self.rows)]
        return said if self.rows else list(self.columns)

    def show(self, console: Console) -> None:
        """Print it, on a terminal as wide as that is."""
        if not console.is_terminal:
            console.width = WIDTH
        shown = RichTable(title=self.title, caption=self.note, title_justify="left")
        for i, column in enumerate(self.shown):
            shown.add_column(column.heading, justify="right" if i else "left")
        for row in self.rows:
            shown.add_row(*(column.text(row) for column in self.shown))
        console.print(shown)

    def publish(self, json_file: Path | None, about: dict[str, Any], **more: Any) -> None:
        """Show it and, where a file is named, write as JSON what it is about and its rows, or what
        is given for them, and more."""
        self.show(Console())
        if json_file is not None:
            page = {"about": about, "rows": self.rows} | more
            write_text(json_file, json.dumps(page, indent=1, ensure_ascii=False))

    def markdown(self) -> str:
        """The same as Markdown."""
        return "\n".join([f"## {self.title}", "", self.note, "", self.grid(), ""])

    def grid(self) -> str:
        """Heading and rows alone, as Markdown."""
        lines = [
            _line(column.heading for column in self.shown),
            _line("---" if i == 0 else "---:" for i in range(len(self.shown))),
            *(_line(column.text(row) for column in self.shown) for row in self.rows),
        ]
        return "\n".join(lines)


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"
