"""The embedding's evidence against the exact oracle of independent words."""

import pytest
import torch

from shared.oracle import PointMixture
from tests.levels import FAMILIES, level_at, noised
from text.codec import Embedding

SIZE, LENGTH, DIM = 7, 3, 5
DATA = torch.tensor([[0, 4, 6], [2, 2, 5]])


def parts(unit_norm: bool) -> tuple[Embedding, PointMixture]:
    codec = Embedding(SIZE, LENGTH, DIM, unit_norm).double()
    generator = torch.Generator().manual_seed(0)
    codec.weight.data = torch.randn(SIZE, DIM, generator=generator, dtype=torch.float64)
    return codec, PointMixture(codec.table().detach().double(), places=(LENGTH,))


@pytest.mark.parametrize("logsnr", [(-8.0, -1.0), (0.5, 4.0)])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unit_norm", [True, False])
def test_evidence_is_the_exact_posterior_of_independent_words(
    family: str, logsnr: tuple[float, float], unit_norm: bool
):
    codec, oracle = parts(unit_norm)
    level = level_at(family, *logsnr)
    x_t = noised(codec.encode(DATA).detach().double(), level)
    with torch.no_grad():
        evidence = codec.evidence(x_t, level)
        exact = oracle.log_posterior(x_t, level)
        # float32 tables: their rows have one length to 1e-7 only, here times alpha^2 / sigma^2
        tolerance = 1e-5 * float(level.logsnr.exp().max()) + 1e-6
        torch.testing.assert_close(evidence.log_softmax(-1), exact, rtol=1e-6, atol=tolerance)
        x0_hat, expected = codec.mean(evidence), oracle.denoise(x_t, level)
        torch.testing.assert_close(x0_hat, expected, rtol=0, atol=tolerance)
        got = codec.log_prob(DATA, x_t, level)
        chosen = exact.gather(-1, DATA[..., None])[..., 0].sum(-1)
        torch.testing.assert_close(got, chosen, rtol=1e-6, atol=LENGTH * tolerance)
