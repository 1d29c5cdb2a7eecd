"""Linear inverse problems: y = A x0 + noise is measured, x0 is wanted.

A is any linear function of x0 per sample: inpainting `lambda x: x[..., seen]`, colourisation
`lambda x: x.mean(1)`, deblurring a convolution; its adjoint comes from autograd.

If x0 given x_t were Gaussian, N(x0_hat, V), the estimate given y too would be

    x0_hat + V A^T (A V A^T + s^2 I)^-1 (y - A x0_hat),   V = (sigma^2 / alpha) d x0_hat / d x_t,

V by Tweedie's formula of second order. It is exact for Gaussian data of any covariance, and for
others the moment-matching approximation (Rozet et al. 2024, MMPS; with V a multiple of I it is
PiGDM, Song et al. 2023). Products with V are backward passes, the inverse is conjugate gradients.

An operator that is not linear, such as one that looks at what a decoder makes of x0, is taken as
linear around x0_hat: A is then its Jacobian there (a step of Gauss-Newton).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from shared.denoiser import Denoise
from shared.schedule import Level
from shared.solver.step import StepHook, Taken

Operator = Callable[[Tensor], Tensor]


def linear_inverse(
    denoise: Denoise,
    operator: Operator,
    measured: Tensor,
    noise_std: float = 0.0,
    iterations: int = 5,
) -> Denoise:
    """The estimate given x_t and measured = operator(x0) + noise_std * noise, (B, ...).

    The operator need only have derivatives, of second order where it bends, sample by sample.
    Exact on a Gaussian once `iterations` reaches the number of distinct eigenvalues of A V A^T (1
    for isotropic data and inpainting); a few are close. Order: around the network or
    `classifier_free`, inside the rest. Cost per call: denoise's evaluation, with gradients, and
    iterations + 1 backward passes through it and the operator; its graph is held meanwhile.

    Raises ValueError for a negative noise_std, iterations below 1, and, when called, for measured
    of another shape than the operator's output.
    """
    if not noise_std >= 0:
        raise ValueError(f"noise_std = {noise_std}: expected 0 or more")
    _check_iterations(iterations)

    def guided(
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        gain = level.widen(x_t.ndim).gain
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            x0_hat = denoise(x, level, condition, previous)
            seen = operator(x0_hat)
        _check_measured(measured, seen)

        def shift(u: Tensor) -> Tensor:
            """V A^T u. V is symmetric, so the backward pass gives its product."""
            (back,) = torch.autograd.grad(seen, x, u, retain_graph=True)
            return gain * back

        at = x0_hat.detach()
        along = _linearised(operator, at.clone())

        def product(u: Tensor) -> Tensor:
            return along(shift(u)) + noise_std**2 * u

        with torch.no_grad():
            return at + shift(_solve(product, measured - seen.detach(), iterations))

    return guided


def repaint_measured(
    operator: Operator, measured: Tensor, iterations: int = 5, draw: int = 0
) -> StepHook:
    """The measured part of the state is a draw of q(A x_s | A x0 = measured) (Song et al. 2021,
    app. I.4, for any operator): x_s + A^+ (alpha y + sigma A z - A x_s).

    `repaint` for a measurement instead of a mask: cheap, biased without time travel, for measured
    without noise. The pseudo-inverse A^+ = A^T (A A^T)^-1 takes `iterations` of conjugate gradients
    (1 if A A^T is a multiple of I, as for a mask or a mean of channels). `draw` and order: as
    `repaint`. Cost: no evaluation.

    Raises ValueError for iterations below 1, and, when called, for measured of another shape.
    """
    _check_iterations(iterations)

    def hook(x_s: Tensor, taken: Taken) -> Tensor:
        with torch.enable_grad():
            x = x_s.detach().requires_grad_()
            seen = operator(x)
        _check_measured(measured, seen)

        def adjoint(u: Tensor) -> Tensor:
            return torch.autograd.grad(seen, x, u, retain_graph=True)[0]

        with torch.no_grad():
            wanted = taken.to.alpha * measured + taken.to.sigma * operator(taken.draw(draw))
            u = _solve(lambda u: operator(adjoint(u)), wanted - seen, iterations)
            return x_s + adjoint(u)

    return hook


def _linearised(operator: Operator, at: Tensor) -> Operator:
    """The operator's derivative at a point, as a function of the direction: of a linear one, the
    operator itself. The product J^T u is linear in u, and its derivative along v is J v."""
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has only a first one
        x = at.requires_grad_()
        seen = operator(x)
        u = torch.zeros_like(seen).requires_grad_()
        (back,) = torch.autograd.grad(seen, x, u, create_graph=True)
    return lambda v: torch.autograd.grad(back, u, v, retain_graph=True)[0]


def _solve(product: Operator, right: Tensor, iterations: int) -> Tensor:
    """u with product(u) = right, each sample its own system, symmetric and positive semi-definite:
    conjugate gradients (Hestenes & Stiefel 1952), which leave a solved sample alone. Of each the
    iterate with the least residual: the Jacobian of a network is not quite symmetric, and from some
    iteration on they may diverge."""

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (right.ndim - 1))

    u, residual, direction = torch.zeros_like(right), right, right
    size = dot(residual, residual)
    best, least = u, size
    for _ in range(iterations):
        image = product(direction)
        curvature = dot(direction, image)
        # 0 once a sample is solved; a network's Jacobian may also have directions that are negative
        going = curvature > 0
        step = torch.where(going, size / curvature, 0)
        u, residual = u + step * direction, residual - step * image
        before, size = size, dot(residual, residual)
        direction = residual + torch.where(going, size / before, 0) * direction
        best, least = torch.where(size <= least, u, best), torch.minimum(size, least)
    return best


def _check_iterations(iterations: int) -> None:
    if iterations < 1:
        raise ValueError(f"iterations = {iterations}: expected 1 or more")


def _check_measured(measured: Tensor, seen: Tensor) -> None:
    if measured.shape != seen.shape:
        raise ValueError(
            f"measured {tuple(measured.shape)}: the operator gives {tuple(seen.shape)}; expected "
            "the same shape, one measurement per sample"
        )
