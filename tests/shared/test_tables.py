"""What both panels read of tables: columns that are there, rows held out, files without splits."""

from pathlib import Path

import pytest
from datasets import Dataset

from shared.errors import ConfigError, DataError
from shared.tables import check_columns, check_split, side_of


def test_every_20th_row_is_held_out_and_no_row_is_on_both_sides():
    held_out, training = side_of(45, True), side_of(45, False)
    assert held_out == [0, 20, 40]
    assert sorted(held_out + training) == [*range(45)]


def test_a_column_that_is_not_there_is_named_beside_those_that_are():
    table = Dataset.from_dict({"text": ["a"], "label": [1]})
    check_columns("x", table, {"data.column": "text", "data.source": None})
    with pytest.raises(DataError, match=r"data.column = 'txet': x has text, label; so"):
        check_columns("x", table, {"data.column": "txet"}, "; so")


def test_a_single_file_has_no_split_to_ask_for(tmp_path: Path):
    file = tmp_path / "lines.txt"
    file.write_text("a\n")
    check_split(str(file), None)
    check_split(str(tmp_path), "test")
    check_split("scene", "test")
    with pytest.raises(ConfigError, match=r"split = test: .*lines.txt has no splits"):
        check_split(str(file), "test")
    with pytest.raises(ConfigError, match="has no splits, a part of its rows is held out"):
        check_split(str(tmp_path), "test", divided=False)
