"""The benchmark of guidance: its measures are right, and it measures what it says."""

import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks.flows import distance, modes
from benchmarks.guidance import agreement, plane, run, tilted
from shared.gaussian import Gaussian


def test_distance_between_commuting_gaussians_is_that_of_their_deviations():
    x = torch.tensor([[1.0, 0], [-1, 0], [0, 2], [0, -2]], dtype=torch.float64)
    spread = (x.T @ x / 3).diagonal().sqrt()
    mean, deviations = torch.tensor([0.3, -0.4]).double(), torch.tensor([0.5, 2.0]).double()
    got = distance(x, Gaussian.of(mean, torch.diag(deviations**2)))
    expected = (0.3**2 + 0.4**2 + float(((spread - deviations) ** 2).sum())) ** 0.5
    assert got == pytest.approx(expected, abs=1e-6)


def test_tilting_once_gives_the_class_itself():
    oracle = plane()
    law = tilted(1.0)
    torch.testing.assert_close(law.mean, oracle.means[1], atol=1e-6, rtol=0)
    expected = (oracle.axes @ torch.diag_embed(oracle.variances) @ oracle.axes.mT)[1]
    torch.testing.assert_close(law.covariance, expected, atol=1e-6, rtol=0)


def test_rows_name_their_cost_and_quality(tmp_path: Path):
    run(n=100, deterministic=6, stochastic=10, json_file=tmp_path / "g.json")
    page = json.loads((tmp_path / "g.json").read_text())
    rows = {(row["method"], row["solver"], row["scale"]): row for row in page["guided"]}
    free = rows["classifier-free", "dpmpp_2m", 2.0]
    by_classifier = rows["classifier (Alg. 2)", "dpmpp_2m", 2.0]
    assert (free["nfe"], free["gradients"]) == (12, 0)
    assert (by_classifier["nfe"], by_classifier["gradients"]) == (6, 6)
    assert free["to_class"] == pytest.approx(by_classifier["to_class"], abs=1e-6)
    assert rows["classifier (Alg. 1)", "ancestral", 1.0]["gradients"] == 9
    unguided = rows["unguided", "dpmpp_2m", 0.0]
    assert unguided["agreement"] < 0.7 < 0.9 < free["agreement"]
    words = {(row["method"], row["topics"], row["asked"]): row for row in page["words"]}
    assert words["Diffusion-LM's 3 updates of 0.1, signs", 2, "topic"]["gradients"] == 3
    assert words["gradient through x0_hat", 2, "word"]["agreement_exact"] == pytest.approx(1)
    given = {row["method"]: row for row in page["given"]}
    assert given["RePaint, r = 5"]["nfe"] == 25
    assert abs(given["linear_inverse, 1 iteration"]["mean"]) < abs(given["infill"]["mean"]) / 3


def test_the_exact_mode_is_near_the_product_and_the_flow_is_not():
    rows = {(row["energies"], row["std"], row["mode"]): row for row in modes(400).rows}
    for many in (1, 2):
        for std in (0.5, 1.0, 2.0, 4.0):
            exact, flow = (rows[many, std, mode] for mode in ("exact", "flow"))
            assert exact["distance"] < 0.15  # 400 samples
            assert exact["spread"] == pytest.approx(exact["exact_spread"], rel=0.1)
            assert flow["spread"] == pytest.approx(math.exp(-5.025 / std**2), rel=0.1, abs=1e-4)
        assert rows[many, 1.0, "flow"]["distance"] > 4 * rows[many, 1.0, "exact"]["distance"]


def test_agreement_is_the_mean_responsibility():
    oracle = plane()
    far = torch.tensor([[9.0, 9.0], [-9.0, 9.0]], dtype=torch.float64)
    log_p = (
        torch.stack(
            [
                torch.distributions.MultivariateNormal(
                    oracle.means[k],
                    oracle.axes[k] @ torch.diag(oracle.variances[k]) @ oracle.axes[k].T,
                ).log_prob(far)
                for k in range(3)
            ]
        )
        + oracle.log_weights[:, None]
    )
    assert agreement(oracle, far) == pytest.approx(float(log_p.softmax(0)[1].mean()), abs=1e-6)
