"""The network of a pair: patches of a picture and words as the tokens of one transformer.

Blocks are those of `shared.nets.transformer`. Every token is told two levels, its own side's first,
so a side's modulation depends on how much is known of the other (for one level: Peebles & Xie 2023;
Bao et al. 2023 put both times among the tokens). Attention runs over all tokens of both sides.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.config import NetConfig
from shared.nets.patches import check_patch, patchify, unpatchify
from shared.nets.transformer import Block, level_features, modulated


class Stream(nn.Module):
    """One side's way in and out: tokens (B, L, channels) <-> hidden (B, L, dim) <-> (B, L, out)."""

    def __init__(self, length: int, channels: int, out: int, dim: int) -> None:
        super().__init__()
        self.embed = nn.Linear(channels, dim)
        self.place = nn.Parameter(torch.randn(length, dim) * 0.02)
        self.level = nn.Sequential(nn.Linear(2 * dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.finish, self.out = nn.Linear(dim, 2 * dim), nn.Linear(dim, out)
        for layer in (self.finish, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def begin(self, tokens: Tensor) -> Tensor:
        """Tokens -> hidden."""
        return self.embed(tokens) + self.place

    def end(self, h: Tensor, told: Tensor) -> Tensor:
        """Hidden, and what the side is told (B, dim) -> outputs."""
        shift, scale = self.finish(F.silu(told)).unsqueeze(1).chunk(2, dim=-1)
        return self.out(modulated(h, shift, scale))


class JointNet(nn.Module):
    """net(x, logsnr, previous), all of them pairs: pictures (B, C, H, W) and words (B, L, D), their
    logsnr (B,), and with `self_condition` the last estimates -> outputs (B, C, H, W), (B, L, out).

    ConfigError when `patch` does not divide the picture.
    """

    def __init__(
        self,
        picture: tuple[int, ...],
        patch: int,
        words: tuple[int, ...],
        out: int,
        config: NetConfig,
        self_condition: bool,
    ) -> None:
        super().__init__()
        C, H, W = picture
        check_patch(patch, H, W)
        self.patch, self.height, self.width, self.dim = patch, H, W, config.dim
        token, length, times = C * patch**2, H * W // patch**2, 2 if self_condition else 1
        self.picture = Stream(length, times * token, token, config.dim)
        self.words = Stream(words[0], times * words[1], out, config.dim)
        self.modulate = nn.Sequential(nn.SiLU(), nn.Linear(config.dim, 6 * config.dim))
        last = self.modulate[1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, "row", cross=False, dropout=config.dropout)
            for _ in range(config.depth)
        )

    def forward(
        self, x: list[Tensor], logsnr: list[Tensor], previous: list[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        picture, words = x
        if previous is not None:
            picture, words = (
                torch.cat([picture, previous[0]], 1),
                torch.cat([words, previous[1]], 2),
            )
        seen, said = self.picture.begin(patchify(picture, self.patch)), self.words.begin(words)
        levels = [level_features(one, self.dim).to(seen.dtype) for one in logsnr]
        told = [
            stream.level(torch.cat(both, 1))
            for stream, both in ((self.picture, levels), (self.words, levels[::-1]))
        ]
        h, lengths = torch.cat([seen, said], 1), (seen.shape[1], said.shape[1])
        m = torch.stack([self.modulate(one).unflatten(-1, (6, self.dim)) for one in told], 2)
        for block in self.blocks:
            h = block(h, m, lengths=lengths)
        seen, said = h.split(lengths, 1)
        drawn = self.picture.end(seen, told[0])
        return unpatchify(drawn, self.patch, self.height, self.width), self.words.end(said, told[1])
