"""What both estimators ask of their arguments, and what they refuse to return."""

import torch
from torch import Tensor


def check(data: Tensor, condition: Tensor | None, draws: int, batch: int) -> None:
    """ValueError for no data, a condition that is not one row a datum, draws or batch below 1."""
    if len(data) == 0:
        raise ValueError("data: expected one datum or more")
    for name, value in (("draws", draws), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{name} = {value}: expected 1 or more")
    if condition is not None and len(condition) != len(data):
        raise ValueError(f"condition: {len(condition)} rows for {len(data)} data: give one each")


def gathered(parts: list[Tensor], names: tuple[str, ...], draws: int) -> dict[str, Tensor]:
    """Chunks (terms, rows), `draws` rows a datum -> the terms by name, their mean over draws (B,).

    FloatingPointError names the term and the datum of a NaN.
    """
    rows = torch.cat(parts, 1)
    for name, term in zip(names, rows, strict=True):
        bad = term.isnan().nonzero().flatten()
        if len(bad):
            raise FloatingPointError(
                f"likelihood: the term {name!r} of datum {int(bad[0]) // draws} is not a number; "
                "sample with nan='stop' to see at which level the network gives none"
            )
    return dict(zip(names, rows.unflatten(1, (-1, draws)).mean(-1), strict=True))
