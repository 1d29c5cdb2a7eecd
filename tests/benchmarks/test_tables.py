"""Tables: every value in its form, what is missing as a dash, and no empty column."""

from rich.console import Console

from benchmarks.tables import Column, Table

COLUMNS = (
    Column("name", "name"), Column("share", "share", ".1%"), Column("seconds", "s", ".2f"),
    Column("nothing", "nothing", ".2f"),
)  # fmt: skip
ROWS = [{"name": "a", "share": 0.25, "nothing": None}, {"name": "b", "seconds": 1.5}]


def test_numbers_are_written_in_their_form_and_empty_columns_left_out():
    table = Table("Title", "Note.", COLUMNS, ROWS)
    assert table.grid() == "\n".join(
        [
            "| name | share | s |",
            "| --- | ---: | ---: |",
            "| a | 25.0% | - |",
            "| b | - | 1.50 |",
        ]
    )
    console = Console(record=True, width=80)
    table.show(console)
    shown = console.export_text()
    assert "25.0%" in shown
    assert "nothing" not in shown


def test_a_table_without_rows_has_its_headings():
    assert Table("Title", "", COLUMNS, []).grid().startswith("| name | share | s | nothing |")
