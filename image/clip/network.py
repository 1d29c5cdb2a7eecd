"""Two towers into one space, one for pictures and one for captions (Radford et al. 2021, sec. 2.4).

A picture goes through strided residual convolutions to 4 x 4 places, which a transformer then reads
as its tokens (convolutions before attention need less data; Xiao et al. 2021); a caption goes
through a transformer of its own. Each ends as the mean of its tokens, mapped to the common space
and to unit length.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from image.classifier import stages
from image.clip.config import ClipConfig
from shared.nets.condition import SourceReader, layer_norm, mean_token, that_count

PLACES = 4  # along a side
TEMPERATURE = 0.07  # at first (Radford et al. 2021, sec. 2.5)
MOST = 100.0  # of the scale of logits, 1 / temperature (ibid.)


class DualEncoder(nn.Module):
    """pictures (B, C, H, W) in [-1, 1] and captions (B, M) of ids in [0, conditions), 0 behind them
    -> points of unit length (B, space), whose products times `scale` are logits."""

    def __init__(self, shape: tuple[int, int, int], conditions: int, config: ClipConfig) -> None:
        super().__init__()
        C, H, W = shape
        layers, channels = stages(C, min(H, W), config.width)
        self.body = nn.Sequential(
            *layers, nn.GroupNorm(8, channels), nn.SiLU(), nn.AdaptiveAvgPool2d(PLACES)
        )
        dim, reads = config.dim, (config.depth, config.heads, config.dropout)
        self.embed = nn.Linear(channels, dim)
        self.place = nn.Parameter(torch.randn(PLACES**2, dim) * 0.02)
        self.look = SourceReader(dim, *reads)
        self.words = nn.Embedding(conditions, dim)
        self.read = SourceReader(dim, *reads)
        self.out = nn.ModuleDict(
            {name: nn.Linear(dim, config.space, bias=False) for name in ("picture", "caption")}
        )
        self.log_scale = nn.Parameter(torch.tensor([-math.log(TEMPERATURE)]))

    @property
    def scale(self) -> Tensor:
        """What products are multiplied by, 1 / temperature, (1,), at most 100."""
        return self.log_scale.clamp(max=math.log(MOST)).exp()

    def pictures(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) in [-1, 1] -> (B, space), float32."""
        tokens = self.embed(self.body(x).flatten(2).transpose(1, 2)) + self.place
        counts = torch.ones(tokens.shape[:2], dtype=torch.bool, device=x.device)
        return self._point("picture", self.look(tokens, counts), counts)

    def captions(self, ids: Tensor) -> Tensor:
        """ids (B, M) -> (B, space), float32."""
        counts = that_count(ids)
        return self._point("caption", self.read(self.words(ids), counts), counts)

    def _point(self, name: str, tokens: Tensor, counts: Tensor) -> Tensor:
        point = self.out[name](mean_token(layer_norm(tokens), counts))
        return F.normalize(point.float(), dim=-1)
