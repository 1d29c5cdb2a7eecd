"""A panel small enough for tests of the trainer; `python -m tests.toy RUN key=value ...` trains it.

The environment can make a run die at a step: TOY_SIGNAL=9 TOY_AT=12 sends signal 9 when the data
of step 12 is taken.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shared.codec import Bits
from shared.config import DiffusionConfig, NetConfig, TrainConfig
from shared.errors import DiptychError
from shared.learner import DiffusionLearner
from shared.nets.transformer import Transformer
from shared.schema import override, schema, validate
from shared.train.loop import train

LENGTH, SIZE = 5, 7


@schema
class ToyConfig:
    panel: str = "toy"
    net: NetConfig = NetConfig(dim=24, depth=2)
    diffusion: DiffusionConfig = DiffusionConfig(prediction="categorical", fit_density=True)
    train: TrainConfig = TrainConfig(steps=20, batch=8, warmup=5, save_every=10, log_every=1)


class ToyNet(nn.Module):
    """The trunk over [x, previous]."""

    def __init__(self, channels: int, config: NetConfig) -> None:
        super().__init__()
        self.trunk = Transformer(
            2 * channels, channels, LENGTH, dim=config.dim, depth=config.depth,
            conditions=4, dropout=config.dropout,
        )  # fmt: skip

    def forward(
        self, x: Tensor, logsnr: Tensor, condition: Tensor | None, previous: Tensor
    ) -> Tensor:
        return self.trunk(torch.cat([x, previous], dim=-1), logsnr, condition)


class ToyExamples:
    """51 rows of five numbers below seven, each with a condition in {1, 2, 3}."""

    def __init__(self) -> None:
        self.taken = 0

    def __len__(self) -> int:
        return 51

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        if os.environ.get("TOY_AT") == str(self.taken):
            os.kill(os.getpid(), int(os.environ["TOY_SIGNAL"]))
        self.taken += 1
        data = (rows[:, None] * torch.tensor([1, 2, 3, 4, 6]) + rows[:, None] // 7) % SIZE
        return data, rows[:, None] % 3 + 1


class ToyPanel:
    name = "toy"
    config_type = ToyConfig

    def prepare(self, config: ToyConfig, run: Path) -> None:
        (run / "prepared").touch()

    def examples(self, config: ToyConfig, run: Path) -> ToyExamples:
        return ToyExamples()

    def learner(self, config: ToyConfig, run: Path) -> DiffusionLearner:
        codec = Bits(SIZE, (LENGTH,))
        return DiffusionLearner(ToyNet(codec.logit_channels, config.net), codec, config.diffusion)

    def sample(self, run: Path, request: Any, out: Path) -> dict[str, Any]:
        raise AssertionError("the tests of the trainer do not sample")

    def edit(self, run: Path, request: Any, out: Path) -> dict[str, Any]:
        raise AssertionError("the tests of the trainer do not sample")

    def control(self, run: Path, controls: Any, request: Any, out: Path) -> dict[str, Any]:
        raise AssertionError("the tests of the trainer do not sample")

    def export(self, run: Path, request: Any, out: Path) -> dict[str, Any]:
        raise AssertionError("the tests of the trainer do not export")

    def reads(self, folder: Path) -> bool:
        return False

    def express(self, scenes: Any, request: Any, folder: Path) -> list[dict[str, str]]:
        raise AssertionError("the tests of the trainer make no pairs")

    def write(self, run: Path, request: Any, out: Path) -> dict[str, Any]:
        raise AssertionError("the tests of the trainer do not sample")

    def evaluate(self, run: Path, request: Any) -> dict[str, Any]:
        raise AssertionError("the tests of the trainer do not evaluate")

    def frontier(self, run: Path, request: Any) -> dict[str, Any]:
        raise AssertionError("the tests of the trainer do not evaluate")

    def datasets(self) -> dict[str, str]:
        return {}


def toy_config(*assignments: str) -> ToyConfig:
    return validate(ToyConfig, override({"panel": "toy"}, assignments), "toy")


def main(folders: list[str], assignments: list[str]) -> int:
    """Train every FOLDER in turn; `FOLDER:key=value` adds an assignment for it alone."""
    try:
        for folder in folders:
            path, _, own = folder.partition(":")
            config = toy_config(*assignments, *([own] if own else []))
            train(config, Path(path), ToyPanel(), quiet=True)
    except DiptychError as error:
        print(error, file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    words = sys.argv[1:]
    runs = [w for w in words if "=" not in w.partition(":")[0]]
    sys.exit(main(runs, [w for w in words if w not in runs]))
