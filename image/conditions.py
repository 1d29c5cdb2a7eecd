"""What to sample -> condition ids: in words or numbers a class, a whole scene or a figure; by a
picture, where its parts are."""

import dataclasses
import difflib
from collections.abc import Sequence
from itertools import cycle, islice

import torch
from torch import Tensor

from image.data import layout_rows, load_pictures
from image.data_config import DRAWN_SIZE, DataConfig
from image.figures import words
from image.layouts import Layouts, given_layouts, listed_layouts
from shared import scene
from shared.errors import ConfigError
from shared.scene import ATTRIBUTES, PLACES, Scene, Thing

# "top left" before "left"
_VALUES = sorted(
    ((value, name) for name, values in ATTRIBUTES.items() for value in values),
    key=lambda pair: -len(pair[0].split()),
)
Label = str | int | Scene
Labels = Label | Sequence[Label]
Words = str | Sequence[str] | None
EXAMPLE = "large red solid circle top left, small blue dots star centre"


def asked_rows(
    labels: Labels | None,
    layout: Layouts | None,
    n: int,
    classes: Sequence[str],
    data: DataConfig | None,
    words: Tensor | None = None,
) -> Tensor | None:
    """What n pictures are to show, by label as in `label_rows` or in `words` (n, ...), by layout or
    both -> conditions (n, ...), or None for neither. ConfigError for what the model does not know,
    DataError for a bad layout."""
    size = None if data is None else data.layout_size()
    if data is None or size is None:
        if layout is not None:
            raise ConfigError(
                "layout: this model was trained without layouts; train with data.layout_column, or "
                "data.name=figures"
            )
        return words if labels is None else label_rows(labels, n, classes, data)
    given = None if layout is None else given_layouts(layout, n, size, data.parts())
    if data.name == "figures" and given is not None:
        return _dressed(labels, given)
    ids = words if labels is None else label_rows(labels, n, classes, data)
    if data.name == "figures" or (given is None and ids is None):
        return ids
    if ids is None:
        width = 1 if data.caption_column is None else data.caption_length
        ids = torch.zeros(n, width, dtype=torch.int64)
    return layout_rows(torch.zeros(n, *size) if given is None else given, ids)


def under_words(words: Tensor, condition: Tensor | None, data: DataConfig | None) -> Tensor:
    """Other words (n, ...) under the layouts of conditions (n, ...), if models of `data` read
    those: what guidance departs from."""
    size = None if data is None else data.layout_size()
    if size is None:
        return words
    pixels = size[0] * size[1]
    layouts = torch.zeros(len(words), pixels) if condition is None else condition[:, :pixels]
    return torch.cat([layouts.to(words), words], 1)


def _dressed(labels: Labels | None, layouts: Tensor) -> Tensor:
    """Figures of these layouts that wear what is said; without words, their textures are left
    open."""
    if isinstance(labels, str) and labels == "all":
        raise ConfigError(
            f"class all: of the outfits of held-out figures, not of a layout that is given; say "
            f"what it wears ({words.EXAMPLE}), or leave it open"
        )
    return words.dressed_rows([] if labels is None else _said(_listed(labels)), layouts)


def label_rows(labels: Labels, n: int, classes: Sequence[str], data: DataConfig | None) -> Tensor:
    """Labels, one or several taken in turn -> condition ids (n, M), for a model of `classes` and of
    `data`, if it is one of ours. "all" is every class; of scenes and figures, those of the held-out
    split. ConfigError for what the model does not know."""
    if isinstance(labels, str) and labels == "all":
        return _all(n, classes, data)
    listed = _listed(labels)
    if data is not None and data.name == "figures":
        return _outfits(listed, n, data)
    scenes = data is not None and data.name == "scene"
    rows = [_scene_ids(label) if scenes else _class_ids(label, classes) for label in listed]
    return torch.tensor(list(islice(cycle(rows), n)))


def _listed(labels: Labels) -> list[Label]:
    listed = [labels] if isinstance(labels, Label) else list(labels)
    if not listed:
        raise ConfigError("class_labels: expected one or more")
    return listed


def _all(n: int, classes: Sequence[str], data: DataConfig | None) -> Tensor:
    if data is not None and data.drawn:
        some = n if data.limit is None else min(n, data.limit)  # the others are not looked at
        rows = load_pictures(dataclasses.replace(data, limit=some), held_out=True).condition
        assert rows is not None
    else:
        class_id(0, classes)
        rows = torch.arange(1, len(classes) + 1)[:, None]
    return rows[torch.arange(n) % len(rows)]


def _outfits(labels: Sequence[Label], n: int, data: DataConfig) -> Tensor:
    return words.outfit_rows(_said(labels), n, data.held_out, data.size or DRAWN_SIZE)


def _said(labels: Sequence[Label]) -> list[str]:
    """What figures wear. ConfigError for what are no words."""
    said = [label for label in labels if isinstance(label, str)]
    if len(said) < len(labels):
        raise ConfigError(
            f"class {labels}: this model draws figures; say what they wear: {words.EXAMPLE}"
        )
    return said


def _class_ids(label: Label, classes: Sequence[str]) -> list[int]:
    if isinstance(label, Scene):
        raise ConfigError("class_labels: a scene, but this model was not trained on scenes")
    return [class_id(label, classes)]


def _scene_ids(label: Label) -> list[int]:
    if isinstance(label, int):
        raise ConfigError(f"class {label}: this model draws scenes; describe one in words")
    return scene.ids(parse_scene(label) if isinstance(label, str) else label)


def class_id(label: str | int, classes: Sequence[str]) -> int:
    """The condition id of a class, by name (in any case) or by number from 0. ConfigError, with the
    nearest name, when there is none."""
    if not classes:
        raise ConfigError(f"class {label!r}: this model was trained without classes")
    if isinstance(label, str):
        if label in classes:
            return classes.index(label) + 1
        lower = [name.lower() for name in classes]
        if label.lower() in lower:
            return lower.index(label.lower()) + 1
        if not label.isdecimal():
            near = difflib.get_close_matches(label.lower(), lower, n=1, cutoff=0.4)
            if near:
                hint = f"did you mean {classes[lower.index(near[0])]}?"
            else:
                hint = f"there are {', '.join(classes)}"
            raise ConfigError(f"class {label!r}: no such class; {hint}")
    if not 0 <= int(label) < len(classes):
        raise ConfigError(f"class {label}: expected 0 to {len(classes) - 1}")
    return int(label) + 1


def parse_scene(text: str) -> Scene:
    """A scene from a list of things, each with its five attributes in any order, such as EXAMPLE.

    ConfigError names the word that is not known, the attribute that is missing or stated twice, or
    why the things do not make a scene.
    """
    things = [_parse_thing(part) for part in text.lower().replace(";", ",").split(",")]
    try:
        return Scene(tuple(sorted(things, key=lambda thing: PLACES.index(thing.place))))
    except ValueError:
        raise ConfigError(
            f"class {text!r}: not a scene: expected 1 to {scene.MAX_THINGS} things with different "
            "shapes and places"
        ) from None


def _parse_thing(text: str) -> Thing:
    left = f" {' '.join(text.split())} "
    found: dict[str, str] = {}
    for value, name in _VALUES:
        if f" {value} " in left:
            if name in found:
                raise ConfigError(f"{text.strip()!r}: two of {name}: {found[name]}, {value}")
            found[name] = value
            left = left.replace(f" {value} ", " ", 1)
    if left.strip():
        word = left.split()[0]
        if word in dict(_VALUES):
            raise ConfigError(f"{text.strip()!r}: {word} is there twice")
        near = difflib.get_close_matches(word, [value for value, _ in _VALUES], n=1)
        hint = f"did you mean {near[0]}?" if near else f"a scene reads like: {EXAMPLE}"
        raise ConfigError(f"{text.strip()!r}: unknown word {word!r}; {hint}")
    for name, values in ATTRIBUTES.items():
        if name not in found:
            raise ConfigError(f"{text.strip()!r}: no {name}; add one of {', '.join(values)}")
    return Thing(**found)


def count_asked(
    labels: Labels | Words | None,
    n: int | None,
    seeds: Sequence[int] | None,
    layout: Layouts | None = None,
) -> int:
    """How many pictures a call is for: as many as it says, or as there are seeds, or labels or
    prompts in a list, or layouts if those are more, or one. ConfigError for none, or when n and
    seeds disagree."""
    if seeds is not None:
        if len(seeds) == 0 or n not in (None, len(seeds)):
            raise ConfigError(
                f"num_images = {n} but {len(seeds)} seeds: expected one seed a picture"
            )
        return len(seeds)
    if n is None:
        said = 1 if labels is None or isinstance(labels, str | int | Scene) else len(labels)
        return max(1, said, len(listed_layouts(layout)))
    if n < 1:
        raise ConfigError(f"num_images = {n}: expected 1 or more")
    return n
