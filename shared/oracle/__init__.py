"""Data distributions whose exact denoiser, score and likelihood are known at every noise level.

A Level brings an alpha and a sigma of its own, and nothing here assumes alpha^2 + sigma^2 = 1:
every schedule family (variance preserving or exploding, sub-VP, straight flow) meets the same
formulas.
"""

from shared.oracle.bitflip import BitFlip, binomial_betas, heartbeat
from shared.oracle.lowrank import LowRankGaussian
from shared.oracle.mixture import GaussianMixture
from shared.oracle.points import PointMixture
from shared.oracle.protocol import Oracle
from shared.oracle.swissroll import swiss_roll

__all__ = [
    "BitFlip",
    "GaussianMixture",
    "LowRankGaussian",
    "Oracle",
    "PointMixture",
    "binomial_betas",
    "heartbeat",
    "swiss_roll",
]
