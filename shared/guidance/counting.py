"""Network evaluations, counted: `count_evaluations` goes around the network, guidance around it."""

from torch import Tensor

from shared.denoiser import Denoise
from shared.schedule import Level


class Counted:
    """A Denoise that counts its calls and the rows in them: NFE = rows / samples."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise = denoise
        self.calls, self.rows = 0, 0

    def __call__(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        self.calls += 1
        self.rows += len(x_t)
        return self.denoise(x_t, level, condition, previous)


def count_evaluations(denoise: Denoise) -> Counted:
    """`.calls` and `.rows` of what is called through it, from 0. Order: innermost. No cost."""
    return Counted(denoise)
