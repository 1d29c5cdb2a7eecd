"""A folder of pictures, each with a layout and a class, as `data.layout_column` reads one: dressed
figures, where their parts are, and the colour of what is behind them.

    python -m examples.layout_folder FOLDER
"""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import tyro
from PIL import Image

from image.figures import world
from image.figures.layout import layouts
from image.figures.render import layout_colours, render
from image.grid import to_pil
from shared.cli import exit_code
from shared.pairs import write_folder

BEHIND = ("blue", "sand", "green")  # by the number of the colour


def write(folder: Annotated[Path, tyro.conf.Positional], n: int = 400) -> None:
    """Write n figures into a new folder: 00000.png and on, the same in layouts/, metadata.jsonl.

    Args:
        folder: Where to.
        n: How many.
    """
    figures = world.samples(0, 0, n)
    numbers = torch.arange(len(world.PARTS))
    palette = layout_colours(numbers.view(1, 1, -1))[0, :, 0].T.flatten().tolist()

    def fill(temporary: Path) -> list[dict[str, str]]:
        (temporary / "layouts").mkdir()
        rows: list[dict[str, str]] = []
        behind = figures.choice("background colour").tolist()
        for i, (picture, parts) in enumerate(zip(render(figures), layouts(figures), strict=True)):
            layout = Image.fromarray(parts.byte().numpy()).convert("P")
            layout.putpalette(palette)  # to be looked at: what counts is the numbers
            names = {"file_name": f"{i:05d}.png", "layout_file_name": f"layouts/{i:05d}.png"}
            to_pil(picture).save(temporary / names["file_name"])
            layout.save(temporary / names["layout_file_name"])
            rows.append(names | {"label": BEHIND[behind[i]]})
        return rows

    write_folder(folder, fill)


if __name__ == "__main__":
    sys.exit(exit_code("layout_folder", partial(tyro.cli, write)))
