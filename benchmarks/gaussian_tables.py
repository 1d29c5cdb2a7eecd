"""The walk through the algebra of Gaussians in numbers: each computed by it, and once otherwise.

A check is exact (an explicit inverse, quadrature, matrix roots) or a mean over draws with its
standard error. The examples are two laws of the plane, P and Q, whose covariances do not commute.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import torch
from scipy import stats
from scipy.integrate import quad
from torch import Tensor

from benchmarks.tables import Column, Table
from shared.gaussian import Gaussian, box_mass, convolution, kl, product, wasserstein2_squared

DIMENSIONS = (1, 10, 100, 300, 1000)
CHECKED = (
    Column("quantity", "quantity"),
    Column("algebra", "algebra", ".6f"),
    Column("check", "check"),
    Column("how", "by"),
    Column("apart", "apart"),
)


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


P_COVARIANCE = torch.tensor([[1.0, 0.8], [0.8, 1.5]], dtype=torch.float64)
Q_COVARIANCE = torch.tensor([[1.2, -0.5], [-0.5, 0.6]], dtype=torch.float64)
P = Gaussian.of(vector(1.0, -0.5), P_COVARIANCE)
Q = Gaussian.of(vector(-0.5, 0.5), Q_COVARIANCE)
POINT = vector(0.3, 0.9)


def exact(quantity: str, algebra: float | Tensor, check: float, how: str) -> dict[str, Any]:
    """A row whose check has no error but rounding and quadrature's."""
    apart = abs(float(algebra) - check)
    return {
        "quantity": quantity,
        "algebra": float(algebra),
        "check": f"{check:.6f}",
        "how": how,
        "apart": f"{apart:.0e}",
    }


def drawn(quantity: str, algebra: float | Tensor, draws: Tensor) -> dict[str, Any]:
    """A row checked by the mean of draws (n,)."""
    mean, error = float(draws.mean()), float(draws.std()) / math.sqrt(len(draws))
    return {
        "quantity": quantity,
        "algebra": float(algebra),
        "check": f"{mean:.4f} ± {error:.4f}",
        "how": "Monte Carlo",
        "apart": f"{abs(mean - float(algebra)) / error:.1f} s.e.",
    }


def definition(x: Tensor) -> list[dict[str, Any]]:
    """Density, entropy and the mass within each contour; x: draws (n, 2) of P."""
    centred = (POINT - P.mean).numpy()
    precision = np.linalg.inv(P_COVARIANCE.numpy())
    square = float(centred @ precision @ centred)
    scale = 2 * math.pi * math.sqrt(float(np.linalg.det(P_COVARIANCE.numpy())))
    explicit = -square / 2 - math.log(scale)
    radius = P.whiten(x).norm(dim=-1)
    return [
        exact(r"$\ln p(0.3, 0.9)$", P.log_prob(POINT), explicit, "inverse, determinant"),
        drawn("entropy, nats", P.entropy(), -P.log_prob(x)),
        *(
            drawn(
                rf"mass inside $\lvert z\rvert = {r}$",
                -math.expm1(-(r**2) / 2),
                (radius <= r).double(),
            )
            for r in (1, 2, 3)
        ),
    ]


def marginals() -> list[dict[str, Any]]:
    """One coordinate alone, and given the other."""
    marginal, value = P.marginal([1]), POINT[:1]
    conditional = P.conditional([0], value)
    precision = np.linalg.inv(P_COVARIANCE.numpy())
    mean = P.mean[1] - precision[1, 0] / precision[1, 1] * (value[0] - P.mean[0])
    integral = quad(lambda x: float(P.log_prob(vector(x, 0.9)).exp()), -11, 13)[0]
    density = marginal.log_prob(POINT[1:]).exp()
    std = conditional.cholesky[0, 0]
    return [
        exact(r"$p(x_2 = 0.9)$", density, integral, r"quadrature over $x_1$"),
        exact(r"$E[x_2 \mid x_1 = 0.3]$", conditional.mean, float(mean), "precision matrix"),
        exact(r"std of $x_2 \mid x_1$", std, precision[1, 1] ** -0.5, "precision matrix"),
    ]


def affine(x: Tensor, eps: Tensor) -> list[dict[str, Any]]:
    """x: draws (n, 2) of P, eps: standard normals (n, 2), of which y = A x + b + N eps is made."""
    matrix, shift = torch.tensor([[0.6, -1.0], [0.4, 0.5]], dtype=torch.float64), vector(0.2, 0.0)
    noise = Gaussian.isotropic(shift, 0.5)
    law = P.predictive(matrix, noise)
    y = x @ matrix.mT + shift + 0.5 * eps
    apart = y - law.mean
    return [
        drawn(r"$E[y_1]$", law.mean[0], y[:, 0]),
        drawn(r"$\mathrm{Var}[y_1]$", law.covariance[0, 0], apart[:, 0] ** 2),
        drawn(r"$\mathrm{Cov}[y_1, y_2]$", law.covariance[0, 1], apart[:, 0] * apart[:, 1]),
    ]


def products() -> list[dict[str, Any]]:
    """On the line, where quadrature is exact: the marginals of P and Q on the first axis."""
    p, q = P.marginal([0]), Q.marginal([0])
    r, log_integral = product(p, q)
    both = _density(p), _density(q)
    integral = quad(lambda x: both[0](x) * both[1](x), -12, 12)[0]
    mean = quad(lambda x: x * both[0](x) * both[1](x), -12, 12)[0] / integral
    square = quad(lambda x: (x - mean) ** 2 * both[0](x) * both[1](x), -12, 12)[0] / integral
    tempered, log_tempered = p.power(0.5)
    root = quad(lambda x: math.sqrt(both[0](x)), -25, 27)[0]
    return [
        exact(r"$\int pq dx$", log_integral.exp(), integral, "quadrature"),
        exact(r"mean of $pq$", r.mean, mean, "quadrature"),
        exact(r"std of $pq$", r.cholesky, math.sqrt(square), "quadrature"),
        exact(r"$\int p^{1/2} dx$", log_tempered.exp(), root, "quadrature"),
        exact(r"std of $p^{1/2}$", tempered.cholesky, math.sqrt(2 * 1.0), r"$\sqrt 2$ that of $p$"),
    ]


def sums(x: Tensor, y: Tensor) -> list[dict[str, Any]]:
    """Independent sums and the characteristic function; x, y: draws (n, 2) of P and of Q."""
    p, q = P.marginal([0]), Q.marginal([0])
    both = _density(p), _density(q)
    integral = quad(lambda u: both[0](u) * both[1](0.4 - u), -12, 12)[0]
    density = convolution(p, q).log_prob(vector(0.4)).exp()
    law, u = convolution(P, Q), vector(0.7, -0.4)
    wave = law.characteristic(u)
    factors = P.characteristic(u) * Q.characteristic(u)
    phase = (x + y) @ u
    return [
        exact(r"$(p * q)(0.4)$", density, integral, "quadrature"),
        drawn(r"$\mathrm{Re} \varphi_{x+y}(u)$", wave.real, phase.cos()),
        drawn(r"$\mathrm{Im} \varphi_{x+y}(u)$", wave.imag, phase.sin()),
        exact(
            r"$\lvert\varphi_{x+y}(u)\rvert$",
            wave.abs(),
            float(factors.abs()),
            r"$\lvert\varphi_x(u) \varphi_y(u)\rvert$",
        ),
    ]


def distances(x: Tensor, y: Tensor) -> list[dict[str, Any]]:
    """x, y: draws (n, 2) of P and of Q."""
    root = scipy.linalg.sqrtm(P_COVARIANCE.numpy())
    cross = np.real(scipy.linalg.sqrtm(root @ Q_COVARIANCE.numpy() @ root))
    trace = float(np.trace(P_COVARIANCE.numpy() + Q_COVARIANCE.numpy() - 2 * cross))
    w2 = float((P.mean - Q.mean).square().sum()) + trace
    return [
        drawn(r"$\mathrm{KL}(P \Vert Q)$, nats", kl(P, Q), P.log_prob(x) - Q.log_prob(x)),
        drawn(r"$\mathrm{KL}(Q \Vert P)$, nats", kl(Q, P), Q.log_prob(y) - P.log_prob(y)),
        exact(r"$W_2^2(P, Q)$", wasserstein2_squared(P, Q), w2, "matrix roots"),
    ]


def boxes(z: Tensor) -> Table:
    """The box of +-3 standard deviations; z: standard normals (n, 1000) or more columns."""
    rows: list[dict[str, Any]] = []
    for n in DIMENSIONS:
        inside = (z[:, :n].abs() <= 3).all(-1).double()
        error = float(inside.std()) / math.sqrt(len(z))
        rows.append({"n": n, "mass": box_mass(n), "drawn": float(inside.mean()), "error": error})
    columns = (
        Column("n", "$n$", ","),
        Column("mass", "$0.9973^n$", ".2%"),
        Column("drawn", "Monte Carlo", ".2%"),
        Column("error", "standard error", ".2%"),
    )
    return Table("The box of three standard deviations", "", columns, rows)


def shells(z: Tensor) -> Table:
    """Where 99.73 % of the mass lies in the radius, and how dense it is there."""
    tail = stats.norm.sf(3)
    rows: list[dict[str, Any]] = []
    for n in DIMENSIONS:
        radius, law = z[:, :n].norm(dim=-1).double(), stats.chi(n)
        rows.append(
            {
                "n": n,
                "mean": law.mean(),
                "drawn": f"{float(radius.mean()):.4f} ± {float(radius.std() / len(z) ** 0.5):.4f}",
                "std": law.std(),
                "from": law.ppf(tail),
                "to": law.isf(tail),
                "nats": -(law.mean() ** 2) / 2,
            }
        )
    columns = (
        Column("n", "$n$", ","),
        Column("mean", r"$E\lvert z\rvert$", ".4f"),
        Column("drawn", "Monte Carlo"),
        Column("std", r"std of $\lvert z\rvert$", ".4f"),
        Column("from", "shell from", ".3f"),
        Column("to", "to", ".3f"),
        Column("nats", "log-density there, less that at 0", ".1f"),
    )
    return Table("The shell", "", columns, rows)


def _density(law: Gaussian) -> Callable[[float], float]:
    """The density of a law on the line, by its formula."""
    mean, std = float(law.mean), float(law.covariance.sqrt())
    return lambda x: math.exp(-(((x - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))
