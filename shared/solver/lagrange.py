"""Integrals of the polynomial through given nodes: what multistep methods weigh estimates with.

int_0^h w(u) p(u) du = sum_j weight_j p(node_j) for polynomials p of degree below the number of
nodes, from the moments m_k = int_0^h w(u) u^k du. In float64, for a handful of nodes.
"""

import math
from collections.abc import Sequence


def moments(h: float, count: int) -> list[float]:
    """int_0^h u^k du, k = 0 .. count - 1."""
    return [h ** (k + 1) / (k + 1) for k in range(count)]


def exponential_moments(h: float, count: int) -> list[float]:
    """int_0^h e^(u - h) u^k du, k = 0 .. count - 1: by parts, m_k = h^k - k m_(k-1)."""
    found = [-math.expm1(-h)]
    for k in range(1, count):
        found.append(h**k - k * found[-1])
    return found


def weights(nodes: Sequence[float], moments: Sequence[float]) -> list[float]:
    """The weight of each node; nodes are different numbers, as many as there are moments."""
    found: list[float] = []
    for j, node in enumerate(nodes):
        basis = [
            1.0
        ]  # coefficients of prod_(i != j) (u - node_i) / (node_j - node_i), lowest first
        for i, other in enumerate(nodes):
            if i != j:
                times_u, times_other = [0.0, *basis], [-other * c for c in basis] + [0.0]
                basis = [
                    (a + b) / (node - other) for a, b in zip(times_u, times_other, strict=True)
                ]
        found.append(sum(c * m for c, m in zip(basis, moments, strict=True)))
    return found
