"""The swiss roll of DPM 2015 (Sohl-Dickstein et al. 2015, sec. 3.1): a plane curve, a bit of noise.

The curve is scikit-learn's, r = phi with phi uniform in [1.5 pi, 4.5 pi], centred and scaled to
unit power per coordinate, so that the null model of the paper (a unit Gaussian) is the natural one.
p(x0) is an integral over phi, taken by Gauss-Legendre quadrature in panels: the nodes are the
points and the quadrature's weights the probabilities of a PointMixture, with nodes so near each
other against the noise that its log-density is the integral's to 1e-9 nats, at every level (noise
only widens it).
"""

import math

import torch
from scipy.special import roots_legendre

from shared.oracle.points import PointMixture

_START, _END = 1.5 * math.pi, 4.5 * math.pi
# of the curve, by integration: mean (2, 2 / 3 pi), mean square (a^2 + a b + b^2) / 3
_MEAN = (2.0, 2 / (3 * math.pi))
_POWER = (_START**2 + _START * _END + _END**2) / 3
_SCALE = math.sqrt((_POWER - sum(m**2 for m in _MEAN)) / 2)
_ORDER = 16  # nodes a panel
_NODES_PER_STD = 5  # of arc length, on average; 3 would leave 1e-9 near the curve, 1e-4 far off


def curve(phi: torch.Tensor) -> torch.Tensor:
    """phi (...) in [1.5 pi, 4.5 pi] -> the noiseless roll (..., 2)."""
    mean = phi.new_tensor(_MEAN)
    return (torch.stack([phi * phi.cos(), phi * phi.sin()], -1) - mean) / _SCALE


def swiss_roll(std: float = 0.05) -> PointMixture:
    """The roll with Gaussian noise of this standard deviation, x (B, 2), float64.

    Raises ValueError unless std is in [0.005, 1]: 272 to 13,280 nodes serve that range.
    """
    if not 0.005 <= std <= 1:
        raise ValueError(f"oracle: swiss_roll std = {std}: expected 0.005 to 1")
    length = (_END**2 - _START**2) / 2 / _SCALE  # nearly: the curve is long against its start
    panels = math.ceil(_NODES_PER_STD * length / std / _ORDER)
    edges = torch.linspace(0, 1, panels + 1, dtype=torch.float64)
    # Seen from beyond an end of the curve, the integrand falls from there within std^2 / distance:
    # panels that halve towards both ends resolve it.
    graded = 0.5 ** torch.arange(1, 7, dtype=torch.float64) / panels
    edges = torch.cat([edges, graded, 1 - graded]).sort().values
    nodes, weights = map(torch.as_tensor, roots_legendre(_ORDER))
    widths = edges.diff()[:, None]
    share = edges[:-1, None] + widths * (nodes + 1) / 2
    phi = _START + (_END - _START) * share.flatten()
    return PointMixture(curve(phi), (widths * weights).flatten(), std)
