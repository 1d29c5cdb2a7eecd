"""Sources in part: which parts stay is the row's affair alone; what stays is spelt as before."""

from collections import Counter

import pytest

from shared import scene
from shared.errors import ConfigError
from shared.schema import override, validate
from text.config import DataConfig, TextConfig
from text.data import read_corpus
from text.metrics.faithfulness import read_source
from text.parts import leave_out, of_scene, of_table, signs_apart

GROUPS = [["formal", "child"], ["large", "red", "solid", "star", "top left"]]
ROWS = range(6000)


def test_whole_sources_are_spelt_as_ever():
    seen = scene.sample(3, 5)
    assert of_scene(seen, 17, 0.0) == scene.spell(seen)
    assert of_table("name[A, B], food[Thai]", 17, 0.0) == "name[A, B], food[Thai]"


def test_what_stays_is_in_its_order_and_never_nothing():
    for row in ROWS[:500]:
        kept = leave_out(GROUPS, row, 1.0)
        assert kept
        for group in kept:
            whole = next(own for own in GROUPS if group[0] in own)
            assert group == [part for part in whole if part in group]
        assert leave_out(GROUPS, row, 1.0) == kept


def test_a_partial_source_is_never_spelt_as_a_scene_of_fewer_things():
    for row in ROWS[:500]:
        seen = scene.sample(3, row)
        told = read_source(of_scene(seen, row, 1.0))
        assert not told.whole or told.scene() == seen


def test_the_asked_share_of_rows_is_partial_and_a_group_may_stand_alone():
    kept = [leave_out(GROUPS, row, 0.5) for row in ROWS]
    # of partial rows, a fifth or so lose nothing
    whole = sum(one == GROUPS for one in kept) / len(kept)
    none = sum(leave_out(GROUPS, row, 1.0) == GROUPS for row in ROWS) / len(ROWS)
    assert whole == pytest.approx(0.5 + 0.5 * none, abs=0.03)  # 4.6 standard errors
    alone = Counter(" ".join(one[0]) for one in kept if len(one) == 1)
    # a manner alone and whole: u (1 - u) on average, times E[min(1, 2 w)^2] = 2 / 3, of half
    assert alone["formal child"] / len(kept) == pytest.approx(1 / 18, abs=0.014)


def test_training_sources_are_partial_and_held_out_ones_whole():
    config = DataConfig(source="scene", partial_sources=0.5, limit=200, only={"count": 1})
    training, held_out = (read_corpus(config, held_out).sources or [] for held_out in (False, True))
    assert {len(source.split(" , ")) for source in held_out} == {2}
    assert any(" , " not in source for source in training)
    assert read_corpus(config).sources == training


def test_signs_stand_alone_for_a_tokenizer_of_words(tmp_path):
    said = "name[The Mill], priceRange[£20-25]"
    assert signs_apart(said) == "name [ The Mill ] , priceRange [ £ 20 - 25 ]"
    table = tmp_path / "some.csv"
    table.write_text('mr,text\n"name[A], food[Thai]",a\n"name[B]",b\n')
    config = DataConfig(name=str(table), source="mr", source_signs=True)
    corpus = read_corpus(config)
    assert corpus.sources == ["name [ B ]"]  # the first row is held out


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("data.partial_sources=1.5", r"expected a number in \[0, 1\]"),
        ("data.partial_sources=0.5", "of what"),
        ("data.source_signs=true", "of what"),
    ],
)
def test_impossible_settings_are_refused(assignment: str, message: str):
    with pytest.raises(ConfigError, match=message):
        validate(TextConfig, override({"panel": "text"}, [assignment]), "test")
