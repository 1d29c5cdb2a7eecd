"""How often a network ran: rows forward and rows backward, counted where they happen."""

from types import TracebackType

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Effort:
    """In its `with` block, counts the rows that go through a network, and those whose gradient
    comes back through it. Evaluations per sample are rows / samples."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.forward, self.backward = 0, 0
        self._handle: RemovableHandle | None = None

    def __enter__(self) -> "Effort":
        self._handle = self.network.register_forward_hook(self._count)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._handle is not None
        self._handle.remove()

    def per(self, samples: int) -> dict[str, float]:
        """{"forward", "backward"} evaluations per sample."""
        return {"forward": self.forward / samples, "backward": self.backward / samples}

    def _count(self, network: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        self.forward += len(output)
        if output.requires_grad:
            output.register_hook(self._count_back)

    def _count_back(self, gradient: Tensor) -> None:
        self.backward += len(gradient)
