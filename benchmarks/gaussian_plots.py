"""The pictures of `docs/gaussians.md`: SVG without a background, for a white or a dark page."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from benchmarks.gaussian_process import forward_posterior
from benchmarks.gaussian_tables import DIMENSIONS, P, Q, boxes, vector
from shared.files import write_text
from shared.gaussian import Gaussian, box_mass, convolution, kl, product, wasserstein2_squared
from shared.schedule import Cosine

GREY = "#838b95"  # 3.5 : 1 on white, 5.4 : 1 on GitHub's dark page
BLUE, ORANGE, GREEN, VIOLET = "#3b8eea", "#d9822b", "#2da06f", "#a371d8"
SHOWN = 200  # points of a cloud


def draw(folder: Path, x: torch.Tensor, z: torch.Tensor) -> None:
    """Write all pictures; x: draws (n, 2) of P, z: standard normals (n, 1000)."""
    for name, picture in (
        ("law", lambda figure: law(figure, x[:SHOWN])),
        ("combined", combined),
        ("distances", distances),
        ("dimensions", lambda figure: dimensions(figure, z)),
        ("posterior", posterior),
    ):
        write_text(folder / f"{name}.svg", svg(picture))


def svg(picture: Callable[[Figure], None]) -> str:
    """The same text at every run: no date, no random ids."""
    style: dict[Any, Any] = {
        "svg.hashsalt": "gaussians",
        "font.size": 9,
        "text.color": GREY,
        "axes.edgecolor": GREY,
        "axes.labelcolor": GREY,
        "axes.titlesize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "legend.frameon": False,
        "legend.fontsize": 8,
    }
    with rc_context(style):
        figure = Figure(figsize=(7.6, 3.0), layout="constrained")
        picture(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def law(figure: Figure, x: torch.Tensor) -> None:
    """Contours and draws of P; its marginal on the second axis, and the conditionals."""
    left, right = figure.subplots(1, 2)
    left.plot(*x.T.numpy(), ".", color=GREY, markersize=2, alpha=0.7)
    angle = torch.linspace(0, 2 * math.pi, 90, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()])
    for radius in (1, 2, 3):
        ellipse = P.mean[:, None] + radius * P.cholesky @ circle
        left.plot(*ellipse.numpy(), color=BLUE, linewidth=1.3)
    left.set_aspect("equal")
    _label(left, "contours: circles under $x = m + Lz$", "$x_1$", "$x_2$")
    grid = torch.linspace(-5, 4, 150, dtype=torch.float64)
    _curve(right, grid, P.marginal([1]), GREY, "$p(x_2)$")
    for value, colour in ((-1.0, ORANGE), (1.0, GREEN), (2.0, VIOLET)):
        given = P.conditional([0], vector(value))
        _curve(right, grid, given, colour, f"$p(x_2 \\mid x_1 = {value:g})$")
    right.set_xlim(right=7)
    _label(right, "marginal, and conditionals of one width", "$x_2$", "density")


def combined(figure: Figure) -> None:
    """On the line: product and convolution of two densities."""
    p, q = P.marginal([0]), Q.marginal([0])
    grid = torch.linspace(-5, 6, 180, dtype=torch.float64)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, third, name in (
        (left, product(p, q)[0], r"$p\,q\,/\int p\,q$"),
        (right, convolution(p, q), "$p * q$"),
    ):
        _curve(axes, grid, p, BLUE, "$p$")
        _curve(axes, grid, q, ORANGE, "$q$")
        _curve(axes, grid, third, GREEN, name)
    _label(left, "product: precisions add", "$x$", "density")
    _label(right, "sum: variances add", "$x$", "")


def distances(figure: Figure) -> None:
    """KL both ways and W2 squared from N(0, 1), as the other law shrinks or moves."""
    left, right = figure.subplots(1, 2)
    fixed = Gaussian.isotropic(vector(0.0), 1.0)
    std = torch.logspace(-1, 0.6, 80, dtype=torch.float64)
    scaled = Gaussian.isotropic(torch.zeros(80, 1, dtype=torch.float64), std)
    shift = torch.linspace(-2.5, 2.5, 80, dtype=torch.float64)
    moved = Gaussian.isotropic(shift[:, None], 0.6)
    for axes, at, other in ((left, std, scaled), (right, shift, moved)):
        curves = (
            (kl(fixed, other), BLUE, r"KL$(p\,\Vert\,q)$"),
            (kl(other, fixed), ORANGE, r"KL$(q\,\Vert\,p)$"),
            (wasserstein2_squared(fixed, other), GREEN, "$W_2^2(p, q)$"),
        )
        for value, colour, name in curves:
            axes.plot(at.numpy(), value.numpy(), color=colour, linewidth=1.5, label=name)
        axes.set_ylim(0, 6)
    left.set_xscale("log")
    _label(left, r"$q = \mathcal{N}(0, s^2)$", "$s$", "from $p = \\mathcal{N}(0, 1)$")
    _label(right, r"$q = \mathcal{N}(m, 0.6^2)$", "$m$", "")


def dimensions(figure: Figure, z: torch.Tensor) -> None:
    """The mass of the box, and the density of the radius."""
    left, right = figure.subplots(1, 2)
    n = np.unique(np.geomspace(1, 3000, 120).astype(int))
    left.plot(n, [box_mass(int(k)) for k in n], color=BLUE, linewidth=1.5, label="$0.9973^n$")
    rows = boxes(z).rows
    left.errorbar(
        [row["n"] for row in rows],
        [row["drawn"] for row in rows],
        yerr=[3 * row["error"] for row in rows],
        fmt=".",
        color=ORANGE,
        label="Monte Carlo, 3 s.e.",
    )
    left.set_xscale("log")
    _label(left, r"mass of the box $|z_i| \leq 3$", "$n$", "")
    colours = (GREY, BLUE, ORANGE, GREEN, VIOLET)
    for k, colour in zip(DIMENSIONS, colours, strict=True):
        middle = math.sqrt(k)
        radius = np.linspace(max(0.0, middle - 4), middle + 4, 120)
        density = stats.chi.pdf(radius, k)
        right.plot(radius, density, color=colour, linewidth=1.5)
        top = radius[np.argmax(density)], density.max()
        right.annotate(f" $n = {k}$", top, color=colour, fontsize=8)
    right.set_xlim(right=39)
    _label(right, r"density of $|z|$: a shell of constant width", "radius", "")


def posterior(figure: Figure) -> None:
    """q(x_s | x_t, x0) on the line, for one (x_t, x0) and several s; and its std at every s."""
    left, right = figure.subplots(1, 2)
    schedule, t = Cosine(), torch.tensor(0.8, dtype=torch.float64)
    x0, x_t = vector(1.5), vector(-0.8)
    grid = torch.linspace(-2.6, 2.6, 180, dtype=torch.float64)
    for s, colour in ((0.75, VIOLET), (0.6, ORANGE), (0.35, GREEN), (0.1, BLUE)):
        law = forward_posterior(x_t, x0, schedule(t), schedule(t.new_tensor(s)))
        _curve(left, grid, law, colour, f"$s = {s:g}$")
    for value, name in ((x_t, "$x_t$"), (x0, "$x_0$")):
        left.axvline(float(value), color=GREY, linewidth=0.8, linestyle=":")
        left.annotate(
            f" {name}", (float(value), 0.93), xycoords=("data", "axes fraction"), color=GREY
        )
    _label(left, r"$q(x_s \mid x_t, x_0)$, $t = 0.8$", "$x_s$", "density")
    times = torch.linspace(0.005, 0.795, 120, dtype=torch.float64)
    levels = [(s, schedule(s)) for s in times]
    std = [float(forward_posterior(x_t, x0, schedule(t), at).cholesky) for _, at in levels]
    given = [float(at.sigma) for _, at in levels]
    right.plot(times, given, color=GREY, linewidth=1.5, label=r"$q(x_s \mid x_0)$: $\sigma_s$")
    right.plot(times, std, color=BLUE, linewidth=1.5, label=r"$q(x_s \mid x_t, x_0)$")
    _label(right, "standard deviation", "$s$", "")


def _curve(axes: Axes, grid: torch.Tensor, law: Gaussian, colour: str, name: str) -> None:
    density = law.log_prob(grid[:, None]).exp()
    axes.plot(grid.numpy(), density.numpy(), color=colour, linewidth=1.5, label=name)


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
