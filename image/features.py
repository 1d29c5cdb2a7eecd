"""The networks in whose features pictures are compared, each with a name that says which one it is.

A distance in features means something beside distances in the same features only, reached by the
same resize: names, weights and resize are part of every result and of every file of statistics.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from image.metrics import efficientnet
from image.metrics.efficientnet import EfficientNetFeatures
from image.metrics.inception import InceptionFeatures
from shared.errors import ConfigError
from shared.schema import one_of

JUDGE = "judge"  # the classifier that the suite trains on the same data, see `image.judge`


class FeatureNetwork(Protocol):
    """What pictures are seen through."""

    @property
    def name(self) -> str:
        """Which network with which weights: of two that differ, never the same."""
        ...

    @property
    def resize(self) -> str:
        """How pictures come to the size that the network takes."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """For a report."""
        ...

    def features(self, images: Tensor) -> Tensor:
        """images (N, C, H, W) of levels -> (N, D) float32, on the CPU; in batches of its own."""
        ...

    def logits(self, features: Tensor) -> Tensor | None:
        """features (N, D) -> (N, K), one for each class; None when it knows no classes, of which
        one holds."""
        ...


# name -> (file of weights, levels of the pictures) -> network: `--features NAME:FILE`
NETWORKS: dict[str, Callable[[Path, int], FeatureNetwork]] = {"inception": InceptionFeatures}
# the same with weights of an installed package: `--features NAME`
INSTALLED: dict[str, Callable[[int], FeatureNetwork]] = {efficientnet.NAME: EfficientNetFeatures}


def build_features(asked: str, levels: int) -> FeatureNetwork | None:
    """The network that `--features` asks for, of pictures of `levels`; None for the judge.

    ConfigError for an unknown name, a missing file name, or a package that is not installed;
    DataError for a file that is not its weights.
    """
    if asked == JUDGE:
        return None
    name, colon, file = asked.partition(":")
    try:
        one_of("features", name, [JUDGE, *NETWORKS, *INSTALLED])
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if name == JUDGE:
        raise ConfigError(f"features = {asked!r}: the judge is trained here; give {name}")
    if name in INSTALLED:
        if colon:
            raise ConfigError(f"features = {asked!r}: its weights are installed; give {name}")
        return INSTALLED[name](levels)
    if not colon or not file:
        raise ConfigError(f"features = {asked!r}: expected {name}:FILE, the file of its weights")
    return NETWORKS[name](Path(file).expanduser(), levels)
