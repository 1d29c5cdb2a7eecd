"""A folder of pictures, each with a layout and a class, as `data.layout_column` reads one: dressed
figures, where their parts are, and the colour of what is behind them.

python -m examples.layout_folder FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from PIL import Image

from image.figures import world
from image.figures.layout import layouts
from image.figures.render import layout_colours, render
from image.grid import to_pil

BEHIND = ("blue", "sand", "green")  # by the number of the colour


def write_folder(folder: Path, n: int = 400) -> None:
    """Into a new folder 00000.png and on, the same in layouts/, and metadata.jsonl."""
    figures = world.samples(0, 0, n)
    numbers = torch.arange(len(world.PARTS))
    palette = layout_colours(numbers.view(1, 1, -1))[0, :, 0].T.flatten().tolist()
    (folder / "layouts").mkdir(parents=True)
    told: list[str] = []
    behind = figures.choice("background colour").tolist()
    for i, (picture, parts) in enumerate(zip(render(figures), layouts(figures), strict=True)):
        layout = Image.fromarray(parts.byte().numpy()).convert("P")
        layout.putpalette(palette)  # to be looked at: what counts is the numbers
        names = {"file_name": f"{i:05d}.png", "layout_file_name": f"layouts/{i:05d}.png"}
        to_pil(picture).save(folder / names["file_name"])
        layout.save(folder / names["layout_file_name"])
        told.append(json.dumps(names | {"label": BEHIND[behind[i]]}))
    (folder / "metadata.jsonl").write_text("\n".join(told), encoding="utf-8")


if __name__ == "__main__":
    write_folder(Path(sys.argv[1]))
