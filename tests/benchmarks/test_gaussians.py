"""The page of the Gaussians holds what its generator computes, and what it claims."""

import re
from pathlib import Path

import pytest
import torch

from benchmarks import gaussian_plots, gaussian_process, gaussian_tables, gaussians
from benchmarks.gaussians import DRAWS, POINTS, page, run, samples, tables
from benchmarks.tables import Table

PAGE = Path(__file__).parents[2] / gaussians.PAGE
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?")


@pytest.fixture(scope="module")
def computed() -> dict[str, Table]:
    return tables(*samples(DRAWS, seed=0), seed=0)


def numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in NUMBER.findall(text)]


def test_page_is_what_its_command_writes(computed: dict[str, Table]):
    """Up to the last digits: differences that are rounding, below 1e-9, differ by machine."""
    written, fresh = PAGE.read_text(encoding="utf-8"), page(computed, DRAWS, 0, PAGE.stem)
    assert NUMBER.sub("#", written) == NUMBER.sub("#", fresh)
    assert numbers(written) == pytest.approx(numbers(fresh), rel=2e-3, abs=1e-9)
    for name in re.findall(r"\]\(gaussians/(\w+\.svg)\)", written):
        assert (PAGE.with_suffix("") / name).is_file()


def test_every_exact_check_agrees_to_rounding_and_every_draw_within_errors(
    computed: dict[str, Table],
):
    """4.5 standard errors of 12 estimates; the seed is fixed, so this never varies."""
    checked = ("definition", "marginals", "affine", "products", "sums", "distances")
    for row in (row for name in checked for row in computed[name].rows):
        apart, bound = float(row["apart"].split()[0]), 4.5 if "s.e." in row["apart"] else 1e-9
        assert apart < bound, row
    for name in ("posteriors", "ddpm", "tweedie"):
        assert all(row["apart"] < 1e-11 for row in computed[name].rows)


def test_box_holds_the_masses_of_the_lecture_and_draws_agree(computed: dict[str, Table]):
    rows = computed["boxes"].rows
    assert [row["n"] for row in rows] == [1, 10, 100, 300, 1000]
    expected = [0.9973, 0.9733, 0.763, 0.444, 0.067]
    assert [row["mass"] for row in rows] == pytest.approx(expected, abs=5e-4)
    for row in rows:
        assert row["drawn"] == pytest.approx(row["mass"], abs=4.5 * row["error"])
        assert row["error"] == pytest.approx(
            (row["mass"] * (1 - row["mass"]) / DRAWS) ** 0.5, rel=0.1
        )


def test_shell_holds_its_mass_between_the_quantiles():
    """200,000 normals in 10 dimensions, 5 standard errors: false alarm below 1e-6."""
    n = 200_000
    z = torch.randn(n, 10, generator=torch.Generator().manual_seed(1))
    row = gaussian_tables.shells(z).rows[1]
    inside = (z.norm(dim=-1) > row["from"]) & (z.norm(dim=-1) < row["to"])
    assert float(inside.double().mean()) == pytest.approx(0.9973, abs=5 * (0.0027 / n) ** 0.5)
    assert row["std"] == pytest.approx(float(z.norm(dim=-1).std()), abs=5 * 0.7 / (2 * n) ** 0.5)


def test_rows_say_how_far_apart_their_numbers_are():
    draws = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)  # 2.5 +- 0.6455
    assert gaussian_tables.drawn("q", 1.0, draws) == {
        "quantity": "q",
        "algebra": 1.0,
        "check": "2.5000 ± 0.6455",
        "how": "Monte Carlo",
        "apart": "2.3 s.e.",
    }
    row = gaussian_tables.exact("q", 1.0, 1.25, "h")
    assert (row["check"], row["apart"], row["how"]) == ("1.250000", "2e-01", "h")


def test_largest_difference_counts_every_point(monkeypatch: pytest.MonkeyPatch):
    """A wrong last coordinate of the last point shows, of the solver's step and of the oracle."""
    x_t, x0 = torch.randn(2, POINTS, 3, generator=torch.Generator().manual_seed(2)).double()

    def spoil(mean: torch.Tensor) -> torch.Tensor:
        mean = mean.clone()
        mean[-1, -1] += 0.5
        return mean

    step, oracle = gaussian_process.ancestral, gaussian_process.GaussianMixture.denoise

    def wrong_step(*given: object) -> tuple[torch.Tensor, torch.Tensor]:
        mean, std = step(*given)  # type: ignore[arg-type]
        return spoil(mean), std

    monkeypatch.setattr(gaussian_process, "ancestral", wrong_step)
    monkeypatch.setattr(
        gaussian_process.GaussianMixture, "denoise", lambda *given: spoil(oracle(*given))
    )
    assert [row["apart"] for row in gaussian_process.posteriors(x_t, x0).rows] == pytest.approx(
        [0.5] * 6
    )
    mixed = [r for r in gaussian_process.tweedie(x_t).rows if r["data"].startswith("mixture")]
    assert [row["apart"] for row in mixed] == pytest.approx([0.5] * 3)


def test_formulas_survive_githubs_markdown():
    """Inside $...$ Markdown takes the backslash off punctuation; inside code-like math it stays."""
    text = PAGE.read_text(encoding="utf-8")
    for safe in (r"```math\n.*?```", r"\$`.*?`\$", r"`.*?`"):
        text = re.sub(safe, "", text, flags=re.DOTALL)
    inline = re.findall(r"\$([^$\n]+)\$", text)
    assert len(inline) > 50
    assert text.count("$") == 2 * len(inline)
    assert not [formula for formula in inline if re.search(r"\\[^a-zA-Z]", formula)]


def test_command_writes_page_pictures_and_numbers(tmp_path: Path):
    out = tmp_path / "page.md"
    run(markdown=out, draws=300, seed=3, json_file=tmp_path / "numbers.json")
    text = out.read_text(encoding="utf-8")
    assert "seed 3, 300 draws" in text
    assert '"draws": 300' in (tmp_path / "numbers.json").read_text()
    named = re.findall(r"\]\(page/(\w+\.svg)\)", text)
    assert sorted(named) == sorted(file.name for file in (tmp_path / "page").iterdir())
    assert all((tmp_path / "page" / name).read_text().startswith("<?xml") for name in named)


def test_picture_is_the_same_text_at_every_run():
    assert gaussian_plots.svg(gaussian_plots.combined) == gaussian_plots.svg(
        gaussian_plots.combined
    )
