"""A dual encoder as training sees it: pairs in, one loss per pair out.

    logits = scale u v'        u, v the points of unit length of all N pictures and captions
    loss_i = (-log softmax(logits)_ii - log softmax(logits')_ii) / 2

the symmetric cross-entropy of the right one among all of the batch (InfoNCE, van den Oord et al.
2018; Radford et al. 2021, fig. 3). A batch that several processes share is one batch: points are
gathered from all, and their gradients go back to where they came from.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from image.classifier import jittered
from image.clip.network import DualEncoder
from shared import noise
from shared.levels import signed
from shared.train.gather import gather

WORDS = 1  # stream of `noise` under a sample's key; 0 moves its picture


class ClipLearner(nn.Module):
    """A learner as `shared.task.Panel.learner` wants it, over pictures (B, C, H, W) of levels and
    captions (B, M) of ids."""

    def __init__(
        self,
        network: DualEncoder,
        levels: int,
        drop_words: float = 0.0,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.network, self.levels, self.autocast = network, levels, autocast
        self.drop_words = drop_words

    def forward(
        self, data: Tensor, condition: Tensor, keys: Tensor, t: Tensor
    ) -> tuple[Tensor, None]:
        """Losses (B,), nats. In training each picture is shifted by a few pixels and its caption
        loses a few tokens, functions of its key."""
        if self.training:
            data = jittered(data, keys)
            if self.drop_words:
                u = noise.uniform(keys, WORDS, (condition.shape[1],))
                condition = condition.masked_fill(u < self.drop_words, 0)
        x = signed(data, self.levels)
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            pictures, captions = self.network.pictures(x), self.network.captions(condition)
        return contrastive_losses(pictures, captions, self.network.scale), None


def contrastive_losses(pictures: Tensor, captions: Tensor, scale: Tensor) -> Tensor:
    """Points of unit length (B, D) of the pairs of this process, and what multiplies their products
    -> losses (B,), nats, each against the pairs of all processes."""
    all_pictures, first = gather(pictures)
    all_captions, _ = gather(captions)
    own = first + torch.arange(len(pictures), device=pictures.device)
    to_caption = F.cross_entropy(scale * pictures @ all_captions.T, own, reduction="none")
    to_picture = F.cross_entropy(scale * captions @ all_pictures.T, own, reduction="none")
    return (to_caption + to_picture) / 2
