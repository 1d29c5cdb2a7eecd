"""Names, numbers and descriptions -> condition ids."""

import pytest

from image.conditions import EXAMPLE, class_id, parse_scene
from shared.errors import ConfigError
from shared.scene import Scene, Thing

CLASSES = ("T-shirt/top", "Trouser", "Ankle boot")


@pytest.mark.parametrize(
    ("label", "expected"),
    [("Trouser", 2), ("trouser", 2), ("ANKLE BOOT", 3), ("0", 1), (2, 3), ("2", 3)],
)
def test_class_is_found_by_name_and_by_number(label: str | int, expected: int):
    assert class_id(label, CLASSES) == expected


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("trousers", "did you mean Trouser?"),
        ("xyzzy", "there are T-shirt/top, Trouser, Ankle boot"),
        ("3", "expected 0 to 2"),
        (-1, "expected 0 to 2"),
    ],
)
def test_class_that_does_not_exist_is_refused_with_the_nearest(label: str | int, words: str):
    with pytest.raises(ConfigError, match=words) as caught:
        class_id(label, CLASSES)
    assert caught.value.code == 2


def test_class_of_a_model_without_classes_is_refused():
    with pytest.raises(ConfigError, match="trained without classes"):
        class_id("0", ())


def test_description_is_a_scene_in_any_order():
    star = Thing("star", "blue", "dots", "small", "centre")
    circle = Thing("circle", "red", "solid", "large", "top left")
    assert parse_scene(EXAMPLE) == Scene((circle, star))
    assert parse_scene("centre dots  STAR small blue; top left solid red large circle") == Scene(
        (circle, star)
    )
    # "left" alone is another place
    assert parse_scene("large red solid circle left").things[0].place == "left"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("large red solid circel left", "unknown word 'circel'; did you mean circle?"),
        ("large red circle left", "no texture; add one of solid, stripes, plaid, dots"),
        ("large red blue solid circle left", "two of colour: red, blue"),
        ("large red red solid circle left", "red is there twice"),
        ("large red solid circle left, small red solid star left", "not a scene"),
        ("", "no shape"),
    ],
)
def test_description_that_is_not_a_scene_is_refused(text: str, words: str):
    with pytest.raises(ConfigError, match=words):
        parse_scene(text)
