"""A condition with a place for every pixel: a layout, whose ids become channels beside the latent.

Concatenation of spatially aligned conditions is that of latent diffusion (Rombach et al. 2022,
sec. 3.3 and 4.3.2). The other ids of a row are read as in any network.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 8  # of an embedded layout


class LayoutReader(nn.Module):
    """Condition (B, H W + M) of ids in [0, conditions), or None -> channels (B, CHANNELS, h, w) and
    the last M ids (B, M). The first H W are those of the pixels, row by row, 0 where nothing is
    said; a latent of fewer places takes their averages. ValueError for rows without such ids."""

    def __init__(
        self, conditions: int, size: tuple[int, int], latent_size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.size, self.latent_size = size, latent_size
        self.embed = nn.Embedding(conditions, CHANNELS)

    def forward(self, condition: Tensor | None, rows: int) -> tuple[Tensor, Tensor | None]:
        height, width = self.size
        if condition is None:
            device = self.embed.weight.device
            layout = torch.zeros(rows, height, width, dtype=torch.int64, device=device)
        elif condition.shape[1] <= height * width:
            raise ValueError(
                f"net: condition {tuple(condition.shape)}, expected {height} x {width} ids and more"
            )
        else:
            layout = condition[:, : height * width].reshape(-1, height, width)
            condition = condition[:, height * width :]
        channels = self.embed(layout).movedim(-1, 1)
        if self.size != self.latent_size:
            channels = F.adaptive_avg_pool2d(channels, self.latent_size)
        return channels, condition


def build_reader(
    conditions: int, size: tuple[int, int] | None, latent_shape: tuple[int, ...]
) -> LayoutReader | None:
    """The reader of layouts of a size, for latents of a shape; None where there are none."""
    _, height, width = latent_shape[:3]
    return None if size is None else LayoutReader(conditions, size, (height, width))


def with_layout(
    reader: LayoutReader | None, h: Tensor, condition: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Channels h (B, K, h, w) and a condition -> the channels of its layout behind them, and the
    rest of the condition; the same where no layout is read."""
    if reader is None:
        return h, condition
    layout, rest = reader(condition, len(h))
    return torch.cat([h, layout.to(h.dtype)], 1), rest
