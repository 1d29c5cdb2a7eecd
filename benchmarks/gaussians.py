"""The page `docs/gaussians.md`: `python -m benchmarks.gaussians` writes it and its pictures anew.

The text stands in `gaussians.md.jinja`; every number in it is computed here.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console

from benchmarks import gaussian_plots, gaussian_process, gaussian_tables
from benchmarks.command import command
from benchmarks.gaussian_tables import CHECKED, DIMENSIONS, P, Q
from benchmarks.tables import Table
from shared.files import write_text
from shared.gaussian import box_mass

PAGE = Path("docs/gaussians.md")
DRAWS = 20_000
POINTS = 7  # pairs (x_t, x0) at which the process is compared


def run(
    markdown: Path = PAGE,
    draws: int = DRAWS,
    seed: int = 0,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Compute the tables, print them, write the page and the pictures beside it.

    Args:
        markdown: The page; its pictures go into the folder of its name.
        draws: Samples of each Monte Carlo estimate.
        seed: Of all of them.
        json_file: Write all numbers here.
    """
    x, y, eps, z = samples(draws, seed)
    sections = tables(x, y, eps, z, seed)
    console = Console()
    for table in sections.values():
        table.show(console)
    folder = markdown.with_suffix("")
    gaussian_plots.draw(folder, x, z)
    write_text(markdown, page(sections, draws, seed, folder.name))
    if json_file is not None:
        about = {"draws": draws, "seed": seed}
        rows = {name: table.rows for name, table in sections.items()}
        write_text(json_file, json.dumps({"about": about} | rows, indent=1))


def samples(draws: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Of P (n, 2), of Q (n, 2), of a noise (n, 2), and standard normals (n, 1000) in float32."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (law.sample(draws, generator) for law in (P, Q))
    eps = torch.randn(draws, 2, generator=generator, dtype=torch.float64)
    return x, y, eps, torch.randn(draws, max(DIMENSIONS), generator=generator)


def tables(
    x: torch.Tensor, y: torch.Tensor, eps: torch.Tensor, z: torch.Tensor, seed: int
) -> dict[str, Table]:
    """All tables of the page, by the name under which its text calls them."""
    walk: dict[str, list[dict[str, Any]]] = {
        "definition": gaussian_tables.definition(x),
        "marginals": gaussian_tables.marginals(),
        "affine": gaussian_tables.affine(x, eps),
        "products": gaussian_tables.products(),
        "sums": gaussian_tables.sums(x, y),
        "distances": gaussian_tables.distances(x, y),
    }
    generator = torch.Generator().manual_seed(seed)
    x_t, x0 = torch.randn(2, POINTS, 3, generator=generator, dtype=torch.float64)
    checked = {name: Table(name, "", CHECKED, rows) for name, rows in walk.items()}
    return checked | {
        "boxes": gaussian_tables.boxes(z),
        "shells": gaussian_tables.shells(z),
        "posteriors": gaussian_process.posteriors(x_t, x0),
        "ddpm": gaussian_process.ddpm(x_t, x0),
        "tweedie": gaussian_process.tweedie(x_t),
    }


def page(sections: dict[str, Table], draws: int, seed: int, folder: str) -> str:
    """The text with its tables; the pictures lie in `folder` beside it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        # LaTeX is full of braces
        variable_start_string="<<",
        variable_end_string=">>",
    )
    in_text = {
        "draws": f"{draws:,}",
        "seed": seed,
        "points": POINTS,
        "folder": folder,
        "three": f"{box_mass(1):.2%}",
        "contours": "{:.1%}, {:.1%} and {:.1%}".format(*(box_mass(1, r) for r in (1, 2, 3))),
        "one_in": round(1 / box_mass(max(DIMENSIONS))),
    }
    grids = {name: table.grid() for name, table in sections.items()}
    return environment.get_template("gaussians.md.jinja").render(**grids, **in_text)


if __name__ == "__main__":
    sys.exit(command(run))
