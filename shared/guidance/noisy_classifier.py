"""Classifier guidance: the gradient of log p(y | x_t), a classifier of noisy data.

By Bayes the score given y is grad log p_t(x) + grad log p_t(y | x), and by Tweedie's formula a term
added to the score adds sigma^2 / alpha times itself to E[x0 | x_t] (Dhariwal & Nichol 2021, Alg. 2,
which says the same of eps: eps - sigma grad). Their Alg. 1 instead shifts the mean of an ancestral
step by its variance times the gradient at that mean. The two differ by O(step).

At scale 1 the exact classifier gives the exact conditional. At another scale s each level's density
is p_t(x) p_t(y | x)^s, which no process noises out of p(x) p(y | x)^s: samples do not follow that.
"""

from torch import Tensor

from shared.denoiser import Denoise
from shared.guidance.gradients import LogProb, gradient, level_at
from shared.guidance.interval import Interval, check_interval, limited
from shared.schedule import Level
from shared.solver.step import StepHook, Taken


def classifier(
    denoise: Denoise, log_prob: LogProb, scale: float = 1.0, interval: Interval = None
) -> Denoise:
    """x0_hat + (sigma^2 / alpha) scale grad log p(y | x_t) (Dhariwal & Nichol 2021, Alg. 2), x0_hat
    alone outside the `interval` of logsnr.

    Both see the condition: put `classifier_free(denoise, 0)` inside to guide the unconditional
    estimate, or let `log_prob` hold y. Order: around `classifier_free` and `linear_inverse`, inside
    `clamp` and `infill`. Cost per call: denoise's, and one forward and backward pass of the
    classifier (none at scale 0, or where all samples are outside the interval). ValueError for an
    interval that is none.
    """
    check_interval(interval)

    def guided(
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        x0_hat = denoise(x_t, level, condition, previous)
        (here,) = limited([scale], level, interval, x_t.ndim, outside=0.0)
        if not isinstance(here, Tensor) and here == 0:
            return x0_hat
        gain = here * level.widen(x_t.ndim).gain
        return x0_hat + gain * gradient(log_prob, x_t, level, condition)

    return guided


def classifier_hook(log_prob: LogProb, scale: float = 1.0) -> StepHook:
    """x_s + scale std^2 grad log p(y | x_s) at x_s = mean (Dhariwal & Nichol 2021, Alg. 1).

    The classifier is asked at the level the step arrives at, as in their derivation (sec. 4.1).
    Order: before `repaint`. Cost per step: one forward and backward pass of the classifier, none at
    scale 0 and in the step to the clean end (its variance is 0). ValueError under a deterministic
    solver, whose variance is 0 everywhere: use `classifier` there.
    """

    def hook(x_s: Tensor, taken: Taken) -> Tensor:
        if scale == 0 or taken.to.sigma == 0:
            return x_s
        if not isinstance(taken.std, Tensor) and taken.std == 0:
            raise ValueError(
                "classifier_hook shifts by the variance of the step, and this step has none: use "
                "a stochastic solver such as 'ancestral', or the wrapper `classifier`"
            )
        slope = gradient(log_prob, taken.mean, level_at(taken.to, x_s), taken.condition)
        return x_s + scale * taken.std**2 * slope

    return hook
