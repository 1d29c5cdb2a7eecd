"""`diptych edit`: what it writes, which options go together, and which pictures it takes."""

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image.editing import asked_edit
from image.edits import Colourise, Inpaint, Interpolate, Invert, Posterior, Replace, Upscale, Vary
from image.opening import open_picture, to_levels
from image.panel import PANEL
from shared.edits import EditRequest
from shared.errors import ConfigError, DataError
from shared.pictures import fit

PICTURE, MASK, OTHER = Path("a.png"), Path("m.png"), Path("b.png")


def request(**settings: Any) -> EditRequest:
    values: dict[str, Any] = {"n": 3, "steps": 3} | settings
    return EditRequest(**values)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    ramp = (np.arange(64).reshape(8, 8) * 3 + 30).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    Image.fromarray(ramp.T.copy()).save(tmp_path / "b.png")
    Image.fromarray(np.where(np.eye(8) > 0, 255, 0).astype(np.uint8)).save(tmp_path / "m.png")
    return tmp_path


@pytest.mark.parametrize(
    "asked",
    [
        {"image": "a.png", "mask": "m.png"},
        {"image": "a.png", "mask": "m.png", "repaint": 2},
        {"image": "a.png", "downscale": 2, "noise_std": 0.1},
        {"image": "a.png", "strength": 0.5, "condition": "7", "guidance": 2.0},
        {"image": "a.png", "invert": True, "source_class": "1", "condition": "7"},
        {"interpolate": ("a.png", "b.png")},
        {"interpolate": ("3", "4")},
    ],
)
def test_every_edit_writes_what_was_given_and_what_it_became(
    make_run, files: Path, asked: dict[str, Any]
):
    out = files / "out"
    named = {
        k: files / v if isinstance(v, str) and v.endswith("png") else v for k, v in asked.items()
    }
    if "interpolate" in asked:
        ends = asked["interpolate"]
        named["interpolate"] = tuple(str(files / e) if e.endswith("png") else e for e in ends)
    PANEL.edit(make_run(), request(seed=5, **named), out)
    assert {path.name for path in out.iterdir()} == {"edited.png", "edited.npz", "edited.json"}
    arrays = np.load(out / "edited.npz")
    assert arrays["images"].shape == (3, 1, 8, 8)
    assert arrays["seeds"].tolist() == [5, 6, 7]
    seen = arrays.get("given")
    assert (seen is None) == (asked == {"interpolate": ("3", "4")})
    told = json.loads((out / "edited.json").read_text())
    assert told["settings"]["steps"] == 3
    measures = asked.keys() & {"mask", "downscale"} and "repaint" not in asked
    assert len(told.get("misfit", [])) == (3 if measures else 0)
    if "mask" in asked:
        assert seen is not None
        off = np.eye(8) == 0
        assert np.array_equal(
            arrays["images"][:, 0, off], np.broadcast_to(seen[0, 0, off], (3, 56))
        )


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"image": PICTURE, "mask": MASK}, Inpaint(PICTURE, MASK)),
        ({"image": PICTURE, "mask": MASK, "repaint": 5}, Inpaint(PICTURE, MASK, Replace(5))),
        ({"image": PICTURE, "grey": True}, Colourise(PICTURE)),
        ({"image": PICTURE, "downscale": 4, "noise_std": 0.2}, Upscale(PICTURE, 4, Posterior(0.2))),
        ({"image": PICTURE, "strength": 0.3}, Vary(PICTURE, 0.3)),
        ({"image": PICTURE, "invert": True}, Invert(PICTURE)),
        (
            {"image": PICTURE, "invert": True, "strength": 0.4, "source_class": "2"},
            Invert(PICTURE, "2", strength=0.4),
        ),
        ({"interpolate": ("a.png", "7")}, Interpolate("a.png", 7)),
        ({"interpolate": ("a.png", "b.png"), "strength": 0.5}, Interpolate("a.png", "b.png", 0.5)),
    ],
)
def test_options_name_one_edit(asked: dict[str, Any], expected: Any):
    assert asked_edit(request(**asked)) == expected


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"image": PICTURE}, "asked for nothing; expected one of --mask FILE"),
        ({"image": PICTURE, "grey": True, "invert": True}, "asked for grey, invert"),
        ({"mask": MASK}, "name the picture for mask"),
        ({"image": PICTURE, "mask": MASK, "strength": 0.5}, "strength: not read by mask"),
        ({"image": PICTURE, "grey": True, "source_class": "1"}, "source_class: not read by grey"),
        ({"image": PICTURE, "strength": 0.5, "repaint": 3}, "repaint: not read by strength"),
        ({"image": PICTURE, "interpolate": ("1", "2")}, "image: not read by interpolate"),
        ({"image": PICTURE, "grey": True, "repaint": 3, "noise_std": 0.1}, "as exact"),
        ({"image": PICTURE, "grey": True, "noise_std": -0.1}, "noise_std = -0.1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(asked: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        asked_edit(request(**asked))


def saved(picture: Image.Image, kind: str, **more: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format=kind, **more)
    return file.getvalue()


COLOURS = np.zeros((4, 6, 3), np.uint8)
COLOURS[:, :3], COLOURS[:, 3:] = (255, 0, 0), (0, 0, 255)
WHOLE = Image.fromarray(COLOURS)
NOISE = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)


def bomb() -> bytes:
    content = bytearray(saved(WHOLE, "PNG"))
    content[16:24] = struct.pack(">II", 20_000, 20_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def test_pictures_of_every_mode_of_8_bits_are_given_as_they_look(tmp_path: Path):
    clear = WHOLE.convert("RGBA")
    clear.putpixel((0, 0), (255, 0, 0, 0))
    for name, content in {
        "palette": saved(WHOLE.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
        "cmyk": saved(WHOLE.convert("CMYK"), "TIFF"),
        "alpha": saved(clear, "PNG"),
    }.items():
        (tmp_path / name).write_bytes(content)
        levels = to_levels(fit(open_picture(tmp_path / name, "image"), 3, (4, 6)), 256)
        expected = COLOURS.copy()
        if name == "alpha":
            expected[0, 0] = 255
        assert np.array_equal(levels.numpy(), expected.transpose(2, 0, 1)), name
    assert np.array_equal(
        to_levels(fit(open_picture(COLOURS, "image"), 1, (4, 6)), 17)[0, 0, :3], [5, 5, 5]
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (saved(Image.fromarray(np.full((4, 6), 999, np.uint16)), "PNG"), "more than 8 bits"),
        (saved(WHOLE, "GIF", save_all=True, append_images=[WHOLE.rotate(180)]), "is animated: 2"),
        (saved(Image.fromarray(NOISE), "PNG")[:900], "is corrupt"),
        (b"no picture", "is corrupt"),
        (bomb(), "larger than any picture should be"),
        (None, "is missing"),
    ],
)
def test_bad_pictures_are_named_with_what_is_wrong(
    make_run, tmp_path: Path, content: bytes | None, words: str
):
    if content is not None:
        (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=words):
        PANEL.edit(make_run(), request(image=tmp_path / "x.png", strength=0.5), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_picture_of_another_shape_is_cropped_around_its_centre_and_scaled():
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 2:10] = 200
    assert np.array(fit(open_picture(wide, "image"), 1, (2, 4))).tolist() == [[200] * 4] * 2
    tall = fit(open_picture(wide.transpose(1, 0, 2).copy(), "image"), 1, (8, 4))
    assert np.array(tall).tolist() == [[200] * 4] * 8
