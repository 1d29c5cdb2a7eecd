"""Faithfulness to a source: what is told of a scene is faithful to it, whole or in part, and what
is told of another scene is not."""

import pytest

from shared import scene
from shared.scene import Scene, Thing
from shared.scene_facts import Facts, Part, Relation, true_of
from text.metrics.faithfulness import compute, faithful, possible_together, read_source
from text.parts import of_scene
from text.reader import read
from text.teller import tell

SCENES = [scene.sample(11, i) for i in range(40)]
SENTENCES = [tell(seen, 11, i).sentence for i, seen in enumerate(SCENES)]


def test_a_spelt_source_is_read_back():
    for seen in SCENES:
        told = read_source(scene.spell(seen))
        assert told.whole
        assert told.scene() == seen
    told = read_source("child , red star , dots top left")
    assert (told.tone, told.audience, told.whole) == (None, "child", False)
    assert told.things == (Part("star", "red"), Part(texture="dots", place="top left"))
    with pytest.raises(ValueError, match="'mauve' is no value of shape"):
        read_source("formal , mauve star")
    with pytest.raises(ValueError, match="leaves something open"):
        told.scene()


def test_a_sentence_is_faithful_to_its_scene_and_to_every_part_of_it():
    for i, (seen, sentence) in enumerate(zip(SCENES, SENTENCES, strict=True)):
        assert faithful(sentence, scene.spell(seen))
        for row in range(5):
            assert faithful(sentence, of_scene(seen, 100 * i + row, 1.0))


def test_of_whole_sources_it_is_truth_of_the_scene_in_its_manner():
    """Against `scene_facts.true_of`, for every pair of a scene and a sentence."""
    right = 0
    for seen in SCENES:
        for sentence in SENTENCES:
            said = read(sentence)
            assert said is not None
            manner = (said.tone, said.audience) == (seen.tone, seen.audience)
            expected = manner and true_of(said, seen.things)
            assert faithful(sentence, scene.spell(seen)) == expected
            right += expected
    assert right >= len(SCENES)


def test_each_part_is_judged_by_itself():
    star = Scene((Thing("star", "red", "solid", "large", "top"),), "plain", "adult")
    sentence = next(
        told for k in range(200) if " star" in (told := tell(star, 5, k).sentence) and "red" in told
    )
    cases = {
        "plain adult , large red solid star top": (1, 1, 1, 1),
        "formal adult , large red solid star top": (0, 1, 1, 1),
        "plain child , large red solid star top": (1, 0, 1, 1),
        "plain adult , large blue solid star top": (1, 1, 1, 0),
        "plain adult , large red solid star top , small red dots moon left": (1, 1, 0, 0),
        "plain": (1, 1, 1, 1),
        "adult , red": (1, 1, 1, 1),
        "adult , blue star": (1, 1, 1, 0),
        "moon , star": (1, 1, 1, 0),
    }
    names = ("tone", "audience", "count", "facts")
    for source, expected in cases.items():
        found = compute([sentence], [source])
        assert tuple(found[name] for name in names) == expected, source
        assert found["faithful"] == all(expected)
    broken = compute(["star a red is"], ["plain"])
    assert set(broken.values()) == {0.0}


def test_relations_and_places_have_to_fit_one_board():
    said = Facts("plain", "adult", (Part("star"), Part("moon")), (Relation(0, "above", 1),))
    top, bottom = Part("star", place="top"), Part("moon", place="bottom")
    assert possible_together(said, [top, bottom])
    assert possible_together(said, [bottom])
    assert not possible_together(said, [Part("star", place="bottom")])  # nothing lies below that
    assert not possible_together(said, [Part("star", place="bottom"), Part("moon", place="top")])
    assert not possible_together(said, [Part("star"), Part("heart")])
    assert possible_together(said, [Part(colour="red"), Part(colour="red")])
    assert not possible_together(said, [Part()] * 3)
