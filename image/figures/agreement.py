"""Whether pictures of figures show the layout and the textures that were asked for.

    IoU of a part = pixels that are of it in both / pixels that are of it in either

over all pictures (the mean over parts is the mIoU of segmentation; Long et al. 2015, sec. 5). A
picture that cannot be read has no part anywhere.
"""

import torch
from torch import Tensor

from image.figures.reader import read
from image.figures.source import from_ids
from image.figures.world import GARMENTS, NOT_WORN, PARTS, unseen


def figure_agreement(images: Tensor, asked: Tensor) -> dict[str, float]:
    """Levels (n, 3, size, size) and condition ids (n, M) -> the share that is readable; the IoU of
    each part that was asked for, and their mean; of garments asked for, the shares with the right
    texture; and the share of pictures in which all garments have theirs."""
    reading = read(images.to(torch.uint8))
    layouts, textures = from_ids(asked)
    shown = reading.layouts.where(reading.readable[:, None, None], -1)
    worn, right = textures != NOT_WORN, reading.textures == textures
    found = {"readable": float(reading.readable.double().mean())}
    parts = {f"{part}_iou": _iou(shown == k, layouts == k) for k, part in enumerate(PARTS)}
    known = {name: iou for name, iou in parts.items() if iou is not None}
    found |= {"layout_iou": sum(known.values()) / len(known), **known}
    for k, garment in enumerate(GARMENTS):
        if bool(worn[:, k].any()):
            found[f"{garment}_texture"] = float(right[worn[:, k], k].double().mean())
    found["texture_agreement"] = float(right[worn].double().mean())
    found["outfit_agreement"] = float((right | ~worn).all(1).double().mean())
    return found


def unseen_figure_agreement(images: Tensor, asked: Tensor) -> dict[str, float]:
    """As `figure_agreement`, and of pictures with textures that no upper and lower garment have
    together in training, the share in which both are right."""
    _, textures = from_ids(asked)
    right = read(images.to(torch.uint8)).textures == textures
    both = right[unseen(textures), :2].all(1)
    return figure_agreement(images, asked) | {"unseen_pairs": float(both.double().mean())}


def _iou(shown: Tensor, asked: Tensor) -> float | None:
    if not bool(asked.any()):
        return None
    return int((shown & asked).sum()) / int((shown | asked).sum())
