"""The benchmark of samplers: its problems and references are what they claim, its peers begin where
they are said to, and its verdict counts right."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import oracle, oracle_measures, oracle_peers
from benchmarks.oracle_peers import Sampler
from benchmarks.oracle_problems import (
    HELD_OUT,
    TUNE,
    Diagonal,
    Problem,
    distances,
    draw,
    exact,
    sliced_wasserstein,
)
from shared.oracle import GaussianMixture, LowRankGaussian
from shared.schedule import Level, variance_exploding, variance_preserving
from shared.solver import prepare, run
from shared.solver.ode import Ode


def level(logsnr: float) -> Level:
    return variance_preserving(torch.tensor(logsnr, dtype=torch.float64))


def normals(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def small() -> Problem:
    """A smooth mixture in the plane."""
    means = torch.tensor([[-0.9, 0.4], [0.7, -0.5], [0.2, 1.1]], dtype=torch.float64)
    variances = torch.tensor([[0.25, 0.2], [0.3, 0.23], [0.28, 0.35]], dtype=torch.float64)
    weights = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    return Problem("small", "", (2,), Diagonal(weights, means, variances))


# -- problems --------------------------------------------------------------------------------------


@pytest.mark.parametrize("logsnr", [-9.0, -0.7, 3.0, 12.0])
def test_diagonal_is_the_mixture_of_the_core(logsnr: float):
    fast = small().oracle
    assert isinstance(fast, Diagonal)
    slow = GaussianMixture(fast.weights, fast.means, fast.variances)
    x_t = 1.5 * normals(7, 2)
    expected = slow.denoise(x_t, level(logsnr))
    torch.testing.assert_close(fast.denoise(x_t, level(logsnr)), expected, rtol=1e-9, atol=1e-11)


def test_diagonal_draws_have_its_moments():
    """20,000 draws: mean and variance of 2 coordinates within 5 standard errors, false alarms below
    1e-5 (the variance's error by a kurtosis of 3, which is more than it has)."""
    problem, n = small(), 20_000
    fast = problem.oracle
    assert isinstance(fast, Diagonal)
    x = fast.sample(n, torch.Generator().manual_seed(3))
    mean = fast.weights @ fast.means
    variance = fast.weights @ (fast.variances + (fast.means - mean) ** 2)
    assert bool(((x.mean(0) - mean).abs() < 5 * (variance / n).sqrt()).all())
    assert bool(((x.var(0) / variance - 1).abs() < 5 * math.sqrt(2 / n)).all())


@pytest.mark.parametrize("problem", draw(TUNE, 0) + draw(HELD_OUT, 4), ids=lambda p: p.name)
def test_problems_have_mean_zero_and_unit_mean_variance(problem: Problem):
    """As the noise grows E[x0 | x] tends to mean + C x / sigma^2."""
    sigma = 1e4
    far = variance_exploding(torch.tensor(-2 * math.log(sigma), dtype=torch.float64))
    D = math.prod(problem.shape)
    x = sigma * torch.eye(D, dtype=torch.float64).reshape(D, *problem.shape)
    up, down = (problem.denoise(sign * x, far).reshape(D, D) for sign in (1, -1))
    assert float((up + down).abs().max()) / 2 < 1e-3
    assert float((up - down).diagonal().mean()) / 2 * sigma == pytest.approx(1, abs=1e-3)


def test_a_seed_gives_its_own_problems_again_and_another_gives_others():
    assert not {family.__name__ for family in TUNE} & {family.__name__ for family in HELD_OUT}
    assert len(TUNE) >= 6
    assert len(HELD_OUT) >= 6
    first, again, other = draw(HELD_OUT, 1), draw(HELD_OUT, 1), draw(HELD_OUT, 2)
    for a, b, c in zip(first, again, other, strict=True):
        x = a.noise(3, 0)
        torch.testing.assert_close(a.denoise(x, level(1)), b.denoise(x, level(1)), rtol=0, atol=0)
        assert a.shape != c.shape or not torch.allclose(
            a.denoise(x, level(1)), c.denoise(x, level(1)), atol=1e-3
        )


# -- references and measures -----------------------------------------------------------------------


def test_reference_is_the_closed_form_of_a_gaussian():
    problem = next(p for p in draw(HELD_OUT, 4) if p.name == "flat")
    flat, noise = problem.oracle, problem.noise(5, 1)
    assert isinstance(flat, LowRankGaussian)
    found, error = exact(problem.denoise, noise, 80.0)
    far, clean = (
        variance_exploding(torch.tensor(-2 * math.log(sigma), dtype=torch.float64))
        for sigma in (80.0, 1e-9)
    )
    torch.testing.assert_close(found, flat.flow(80 * noise, far, clean), rtol=0, atol=1e-6)
    assert float(error.max()) < 1e-4


def test_reference_is_where_an_adaptive_method_goes():
    problem = small()
    noise = problem.noise(6, 1)
    found, error = exact(problem.denoise, noise, 80.0)
    plan = prepare(oracle_measures.SCHEDULE, Ode(1e-9, 1e-9), 1)
    x = run(plan, problem.denoise, 80 * noise).x  # to 0.002, and its estimate there
    assert float(distances(found, x).max()) < 1e-5
    assert 0 < float(error.max()) < 1e-6


def test_sliced_wasserstein_is_the_shift_and_sorts():
    x = normals(400, 3)
    shuffled = x[torch.randperm(400, generator=torch.Generator().manual_seed(1))]
    assert sliced_wasserstein(x, shuffled) < 1e-12
    shift = x.new_tensor([0.6, -1.2, 0.3])
    expected = float(shift.square().mean().sqrt())
    # 200 directions: the mean square is chi-square's, its standard error under 7 %
    assert sliced_wasserstein(x, shuffled + shift) == pytest.approx(expected, rel=0.1)
    line = x[:, :1]  # one coordinate: W2 of the line itself
    assert sliced_wasserstein(line, 2 * line) == pytest.approx(float(line.square().mean().sqrt()))


def test_errors_are_root_mean_square_and_median_of_the_distance():
    problem = small()
    noise = problem.noise(5, 1)
    end, _ = exact(problem.denoise, noise, 80.0)
    off = torch.tensor([0.1, 0.4, 0.2, 0.9, 0.3], dtype=torch.float64)

    def wrong(denoise: object, noise: Tensor, steps: int, seed: int) -> Tensor:
        problem.denoise(noise, level(0))  # not counted: not through the counter
        return end + off[:, None] * torch.tensor([1.0, -1.0])

    (row,) = oracle_measures.errors(problem, [Sampler("wrong", 80.0, wrong)], noise, (3,))
    assert row["median"] == pytest.approx(0.3)
    assert row["rms"] == pytest.approx(math.sqrt(float(off.square().mean())))
    assert row["evaluations"] == 0


def test_clouds_of_exact_draws_are_at_the_floor():
    problem, drawn = small(), torch.Generator().manual_seed(8)
    fresh = Sampler(
        "fresh", 80.0, lambda denoise, x, steps, seed: problem.oracle.sample(600, drawn)
    )
    off = Sampler(
        "off", 80.0, lambda denoise, x, steps, seed: problem.oracle.sample(600, drawn) + 1
    )
    good, bad = oracle_measures.clouds(problem, [fresh, off], 600, (4,))
    assert good["w2"] < 2 * good["floor"] < 0.2
    assert bad["w2"] == pytest.approx(1, abs=0.2)


def test_predictions_and_families_agree_and_times_differ(monkeypatch: pytest.MonkeyPatch):
    families = {name: oracle_measures.FAMILIES[name] for name in ("cosine", "edm")}
    monkeypatch.setattr(oracle_measures, "FAMILIES", families)
    monkeypatch.setattr(oracle_measures, "COMBINED", ("heun", "dpmpp_2m"))
    rows = oracle_measures.combinations([small()], 6, 1)
    assert all(0 < row["predictions"] < 1e-9 for row in rows)
    same = {(row["schedule"], row["solver"]): row["same"] for row in rows}
    own = {(row["schedule"], row["solver"]): row["own"] for row in rows}
    assert same["cosine", "dpmpp_2m"] == pytest.approx(same["edm", "dpmpp_2m"], rel=1e-6)
    assert same["cosine", "heun"] == pytest.approx(same["edm", "heun"], rel=1e-6)
    assert own["cosine", "dpmpp_2m"] != pytest.approx(own["edm", "dpmpp_2m"], rel=1e-2)


# -- samplers --------------------------------------------------------------------------------------

SAMPLERS = [*oracle_peers.deterministic(), *oracle_peers.stochastic(), *oracle_measures.noisy()]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.name)
def test_samplers_begin_at_their_noise_and_keep_to_the_nfe(sampler: Sampler):
    problem, noise = small(), normals(4, 2)
    asked: list[tuple[Tensor, float]] = []

    def spy(
        x_t: Tensor, level: Level, condition: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        asked.append((x_t / level.alpha, float(level.sigma / level.alpha)))
        return problem.denoise(x_t, level)

    x = sampler(spy, noise, 6, 1)
    assert x.shape == noise.shape
    assert len(asked) == (6 if sampler.stages == 1 else 5)
    state, sigma = asked[0]
    if sampler.name == "diffusers DDIM" or sampler.name in (
        "diffusers DDPM",
        "euler_churn, karras",
    ):
        return  # leading times begin below the noisiest level; churn above it
    assert sigma == pytest.approx(sampler.sigma, rel=2e-3)
    if sampler in oracle_peers.deterministic():
        torch.testing.assert_close(state, sampler.sigma * noise, rtol=2e-5, atol=1e-4)


FOLLOWERS = [*oracle_peers.deterministic(), *oracle_measures.ours(small(), 0)]


@pytest.mark.parametrize("sampler", FOLLOWERS, ids=lambda s: s.name)
def test_samplers_of_the_ode_near_its_solution(sampler: Sampler):
    """1 % at 60 NFE, Heun 2 %; of order 1, or with a long last step in their default grid, 7 %."""
    problem = small()
    noise = problem.noise(16, 1)
    (row,) = oracle_measures.errors(problem, [sampler], noise, (60,))
    slow = any(word in sampler.name.lower() for word in ("ddim", "euler"))
    plain = sampler.name in ("diffusers DPM++ 2M", "diffusers UniPC", "diffusers DEIS")
    bound = 0.07 if slow or plain else 0.02 if "heun" in sampler.name.lower() else 0.01
    assert row["rms"] < bound


def test_the_same_solver_is_the_same_here_and_there():
    problem = small()
    samplers = {sampler.name: sampler for sampler in FOLLOWERS}
    rows = oracle_measures.errors(
        problem,
        [
            samplers[name]
            for name in ("dpmpp_2m, karras", "k-diffusion dpmpp_2m", "diffusers EDM DPM++ 2M")
        ],
        problem.noise(8, 1),
        (9,),
    )
    assert rows[0]["rms"] == pytest.approx(rows[1]["rms"], rel=1e-5)
    assert rows[0]["rms"] == pytest.approx(rows[2]["rms"], rel=1e-3)  # their sigmas are float32


# -- verdict ---------------------------------------------------------------------------------------


def row(problem: str, sampler: str, rms: float, median: float, nfe: int = 5) -> dict[str, object]:
    own = not sampler.startswith("peer")
    return {
        "problem": problem,
        "sampler": sampler,
        "ours": own,
        "nfe": nfe,
        "rms": rms,
        "median": median,
    }


def test_verdict_takes_the_best_single_peer_and_names_the_cells_lost_to_any():
    rows = [
        row("a", "auto, fitted", 0.2, 0.02),
        row("b", "auto, fitted", 0.8, 0.02),
        row("a", "peer 1", 0.4, 0.4),
        row("b", "peer 1", 0.9, 0.1),
        row("a", "peer 2", 9.0, 0.1),
        row("b", "peer 2", 0.4, 0.1),
        row("b", "better", 0.001, 0.001),  # of ours: no peer
        row("a", "better", 0.001, 0.001),
    ]
    rms, median = oracle.verdict(rows)
    assert rms["chosen"] == pytest.approx(0.4)
    assert (rms["peer"], rms["theirs"]) == ("peer 1", pytest.approx(0.6))
    assert rms["ratio"] == pytest.approx(2 / 3)
    assert rms["missed"] == "1.33"
    assert list(rms["worse"]) == ["b"]
    assert rms["worse"]["b"] == {"peer": "peer 2", "ratio": pytest.approx(2.0)}
    assert rms["cells"] == "b 2.00"
    assert (median["peer"], median["missed"], median["cells"]) == ("peer 2", "reached", "none")
    assert median["ratio"] == pytest.approx(0.2)
    said = oracle.lost([rms, median], 2)
    assert said.startswith("Goals missed: rms at NFE 5. A peer is better in 1 of 4 cells")


def test_no_goal_is_set_at_100():
    rows = [row("a", "auto, fitted", 0.2, 0.1, 100), row("a", "peer 1", 0.1, 0.1, 100)]
    assert [line["missed"] for line in oracle.verdict(rows)] == [None, None]


def test_an_error_of_zero_counts_as_tiny():
    assert oracle_measures.geometric_mean([0.0, 1.0]) == pytest.approx(1e-6)
    assert oracle_measures.geometric_mean([0.1, 0.2, 0.4]) == pytest.approx(0.2)


def test_command_writes_numbers_tables_and_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(oracle_measures, "COMBINED", ("ddim",))
    files = [tmp_path / f"o.{end}" for end in ("json", "md", "svg")]
    oracle.run("held_out", 3, 16, True, *files)
    page = json.loads(files[0].read_text())
    assert {"verdict", "problems", "errors", "clouds", "combinations"} < set(page)
    assert page["about"]["seed"] == 3
    assert {line["nfe"] for line in page["verdict"]} == {5, 10}
    cells = {(line["problem"], line["sampler"], line["nfe"]) for line in page["errors_by_problem"]}
    assert ("spiral", "auto, fitted", 5) in cells
    assert ("roll", "diffusers UniPC karras", 10) in cells
    text = files[1].read_text()
    assert "![Error against NFE](o.svg)" in text
    assert "--problems held_out --seed 3 --n 16" in text
    assert "k-diffusion lms" in text
    assert files[2].read_text().startswith("<?xml")
