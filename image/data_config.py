"""The section of a configuration that says which pictures to read, and what is told of them."""

import dataclasses

from image.figures.source import columns
from image.figures.world import PARTS
from shared.groups import ALL
from shared.scene import COLUMNS
from shared.schema import one_of, positive, schema
from shared.tokenizer import KINDS, SPECIAL

DRAWN = ("scene", "figures")
CACHES = ("memory", "disk")
DRAWN_SIZE = 32  # pixels along a side, unless data.size says another
MOST_PARTS = 255  # numbers that a pixel of a layout can hold, but 0


@schema
class DataConfig:
    """Pictures and their labels.

    `name` is `digits`, `scene` or `figures` (embedded), a .parquet file, a folder of such files
    or tar shards (`shared.tars`) named by split, an image folder, a folder that `datasets` saved,
    or a data set of the hub; $VARIABLES in it are expanded. A single file holds out every 20th
    picture as its `held_out` split.
    """

    name: str = "digits"
    split: str = "train"
    held_out: str = "test"
    image_column: str = "image"
    label_column: str | None = "label"  # null: without classes
    size: int | None = None  # pixels along a side, cropped and scaled to it; null: as they are
    channels: int | None = None  # 1 (grey) or 3 (RGB); null: as the first picture has
    limit: int | None = None  # of pictures, evenly spread over the split
    flip: bool = False  # mirror half of the training pictures left to right, each time anew
    # Pixels that training pictures are read larger by, of which it sees a window of `size` in a
    # random place, each time anew
    crop: int = 0
    cache: str = "memory"  # of decoded pictures; disk: kept there, for data that memory cannot hold
    skip_bad: bool = False  # leave out, count and name what cannot be read or has no caption

    # Texts as the condition, in place of classes, which then only the judge of `evaluate` learns
    # (where there are any): a column, or `scene` in the scene world.
    caption_column: str | None = None
    caption_length: int = 48  # tokens; a picture with a longer caption is dropped, counted
    # Folder of a CLIPTextModel or T5EncoderModel of transformers with its tokenizer, which reads
    # captions in place of blocks trained with the network; $VARIABLES are expanded
    text_encoder: str | None = None
    # to caption_length before the encoder reads them, and padding is attended to: as in Stable
    # Diffusion
    pad_captions: bool = False
    tokenizer: str = "word"
    vocabulary: int = 8192  # at most, special tokens included
    min_count: int = 1  # rarer words are unknown (word tokenizer)

    # A layout as a condition, beside the caption, or the class where there is one: a column of
    # pictures whose pixels hold the number of a part, 0 for none, and how many parts there are, or
    # their names
    layout_column: str | None = None
    layout_classes: int | tuple[str, ...] | None = None

    # Scenes and figures: attributes dropped and guided together, by name, such as
    # {layout: [shape, place]} or {texture: [upper, lower, outer]}
    groups: dict[str, tuple[str, ...]] = dataclasses.field(
        default_factory=dict[str, tuple[str, ...]]
    )
    compositional: bool = False  # train without some pairs: scenes of a shape and a colour,
    # figures of the textures of upper and lower garments

    def __post_init__(self) -> None:
        for name in ("size", "limit", "caption_length", "min_count"):
            value = getattr(self, name)
            if value is not None:
                positive(f"data.{name}", value)
        if self.channels not in (None, 1, 3):
            raise ValueError(f"data.channels = {self.channels}: expected 1 (grey) or 3 (RGB)")
        one_of("data.cache", self.cache, CACHES)
        if self.cache == "disk" and not self.in_files:
            raise ValueError(
                f"data.cache = 'disk': of pictures in files, data.name = {self.name!r}; leave it "
                "out"
            )
        one_of("data.tokenizer", self.tokenizer, KINDS)
        if self.vocabulary <= SPECIAL:
            raise ValueError(f"data.vocabulary = {self.vocabulary}: expected more than {SPECIAL}")
        if self.text_encoder is not None and self.caption_column is None:
            raise ValueError(
                f"data.text_encoder = {self.text_encoder!r}: reads captions, and "
                "data.caption_column = null; name the column, or leave it out"
            )
        if self.pad_captions and self.text_encoder is None:
            raise ValueError(
                "data.pad_captions = true: of captions that data.text_encoder reads; name one, or "
                "leave it out"
            )
        self._check_layout()
        self._check_scene()
        self._check_augmented()

    def augmented(self) -> dict[str, str]:
        """What is changed at random in training pictures: the settings that ask for it, and what
        they make of a picture."""
        made = {f"data.crop = {self.crop}": "windows"} if self.crop else {}
        return made | ({"data.flip = true": "mirror images"} if self.flip else {})

    def larger(self) -> "DataConfig":
        """As training reads pictures, of which it sees windows."""
        return dataclasses.replace(self, size=self.size + self.crop) if self.size else self

    def condition_groups(self) -> dict[str, tuple[int, ...]]:
        """Columns of the condition, by the names of what can be dropped and guided by itself. Of
        drawn data, attributes that `groups` leaves out are groups of their own. The states of a
        text encoder have none."""
        if self.text_encoder is not None:
            return {}
        if self.caption_column is not None or not self.drawn:
            pixels = 0 if self.layout_column is None else (self.size or 0) ** 2
            layout = {"layout": tuple(range(pixels))} if pixels else {}
            if self.caption_column is not None:
                return layout | {"text": tuple(range(pixels, pixels + self.caption_length))}
            return layout | ({} if self.label_column is None else {"class": (pixels,)})
        columns = self._columns()
        joined = {
            name: tuple(sorted(column for part in parts for column in columns[part]))
            for name, parts in self.groups.items()
        }
        used = {part for parts in self.groups.values() for part in parts}
        return joined | {name: where for name, where in columns.items() if name not in used}

    @property
    def drawn(self) -> bool:
        """Whether pictures are drawn here, from attributes that are then known."""
        return self.name in DRAWN

    @property
    def in_files(self) -> bool:
        """Whether pictures are read, and not embedded."""
        return not self.drawn and self.name != "digits"

    def layout_size(self) -> tuple[int, int] | None:
        """Of the layout that a condition begins with, where it has one."""
        side = self.size or DRAWN_SIZE
        return (side, side) if self.parts() else None

    def parts(self) -> tuple[str, ...]:
        """What a pixel of a layout may hold, by number, from 0; empty without layouts."""
        if self.name == "figures":
            return PARTS
        if isinstance(self.layout_classes, int):
            return ("none", *(str(k + 1) for k in range(self.layout_classes)))
        return () if self.layout_classes is None else ("none", *self.layout_classes)

    def _columns(self) -> dict[str, tuple[int, ...]]:
        return columns(self.size or DRAWN_SIZE) if self.name == "figures" else COLUMNS

    def _check_layout(self) -> None:
        column, classes = self.layout_column, self.layout_classes
        if column is None and classes is None:
            return
        if column is None or classes is None:
            raise ValueError(
                f"data.layout_column = {column!r}, data.layout_classes = {classes!r}: expected "
                "both, or neither: the column of layouts, and how many parts they have, or their "
                "names"
            )
        names = self.parts()[1:]
        if not 1 <= len(names) <= MOST_PARTS or len(set(names)) < len(names):
            raise ValueError(
                f"data.layout_classes = {classes!r}: expected 1 to {MOST_PARTS} parts, each with a "
                "name of its own"
            )
        name = f"data.layout_column = {column!r}"
        if not self.in_files:
            raise ValueError(f"{name}: of pictures in files, data.name = {self.name!r}")
        if self.text_encoder is not None:
            raise ValueError(
                f"{name}: beside captions that the network's own blocks read; leave "
                "data.text_encoder out"
            )
        if self.size is None:
            raise ValueError(f"{name}: set data.size=PIXELS, to which both pictures are scaled")

    def _check_augmented(self) -> None:
        if self.crop < 0:
            raise ValueError(f"data.crop = {self.crop}: expected 0 pixels or more")
        for name, made in self.augmented().items():
            if self.layout_column is not None:
                raise ValueError(
                    f"{name}: layouts say where things are, and would be wrong of {made}; leave "
                    "it out"
                )
            if self.drawn:
                raise ValueError(
                    f"{name}: what is known of {self.name} says where things are, and would be "
                    f"wrong of their {made}; leave it out"
                )
        if self.crop and (not self.in_files or self.size is None):
            raise ValueError(
                f"data.crop = {self.crop}: of pictures in files that are scaled to data.size, got "
                f"data.name = {self.name!r}, data.size = {self.size}; set data.size=PIXELS, or "
                "leave it out"
            )

    def _check_scene(self) -> None:
        if not self.drawn and (self.groups or self.compositional):
            raise ValueError(
                "data.groups, data.compositional: of the scene world and of figures; data.name = "
                f"{self.name!r}"
            )
        if self.name == "scene" and self.caption_column not in (None, "scene"):
            raise ValueError(
                f"data.caption_column = {self.caption_column!r}: the captions of drawn scenes are "
                "their own words: set 'scene', or write pairs with `diptych data scene DIR`"
            )
        if self.name in ("digits", "figures") and self.caption_column is not None:
            raise ValueError(f"data.caption_column: {self.name} have no captions; leave it out")
        if self.groups and self.caption_column is not None:
            raise ValueError("data.groups: a caption is one condition; leave one of them out")
        known = self._columns() if self.groups else {}
        parts = [part for parts in self.groups.values() for part in parts]
        for name, own in self.groups.items():
            if not own:
                raise ValueError(f"data.groups.{name}: expected one attribute or more")
            for part in own:
                one_of(f"data.groups.{name}", part, list(known))
            if name == ALL or (name in known and name not in own):
                raise ValueError(f"data.groups.{name}: this name means something else; choose one")
        if len(set(parts)) < len(parts):
            raise ValueError(f"data.groups = {self.groups}: an attribute is in two of them")
