"""The autoregressive reference: a GPT-2-shaped causal model, from scratch, on the same tokens.

p(sentence) = product of p(w_i | BOS, w_1 .. w_{i-1}), the end included, so its likelihood is exact.
Where sentences are written from a source, its tokens stand before BOS.
It is trained by the same engine as the diffusion models, generates by sampling, and judges: the
perplexity of `text.metrics.perplexity` is measured under one of these.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.config import NetConfig
from shared.tokenizer import BOS, PAD
from text.generation import gpt2, sampled, write_rows


class CausalLM(nn.Module):
    """A learner as `shared.task.Panel.learner` wants it, over rows of up to `length` + 1 ids, and
    sources of up to `source_length`."""

    def __init__(
        self,
        size: int,
        length: int,
        config: NetConfig,
        autocast: torch.dtype | None = None,
        source_length: int = 0,
    ) -> None:
        super().__init__()
        self.length, self.autocast = length, autocast
        # a row that does not end within its length, and its end
        self.model = gpt2(size, source_length + length + 1, config)

    def nll(self, ids: Tensor, source: Tensor | None = None) -> Tensor:
        """-log p of each token given those before it and the source (B, M), nats, (B, L); zero
        where ids (B, L) is PAD.

        Float32 whatever the network computes in.
        """
        before = F.pad(ids[:, :-1], (1, 0), value=BOS)
        seen = torch.ones_like(before)  # its PAD comes last: causal attention hides it already
        if source is not None:
            before = torch.cat([source, before], dim=1)
            seen = torch.cat([(source != PAD).long(), seen], dim=1)
        with torch.autocast(ids.device.type, self.autocast, enabled=self.autocast is not None):
            logits = self.model(
                input_ids=before, attention_mask=seen, position_ids=_places(seen)
            ).logits[:, -ids.shape[1] :]
        losses = F.cross_entropy(logits.float().transpose(1, 2), ids, reduction="none")
        return losses.masked_fill(ids == PAD, 0.0)

    def forward(
        self, data: Tensor, condition: Tensor | None, keys: Tensor, t: Tensor
    ) -> tuple[Tensor, None]:
        """data (B, L), its source (B, M) or None -> the sentence's nats over L, (B,): every *token*
        weighs the same, which a mean over each sentence's own tokens would deny to long ones."""
        return self.nll(data, condition).sum(1) / data.shape[1], None

    @torch.no_grad()
    def generate(
        self,
        seeds: Sequence[int],
        temperature: float = 1.0,
        source: Tensor | None = None,
        start: Sequence[int] = (),
    ) -> Tensor:
        """Rows of ids (n, length), one per seed; what follows EOS is PAD. Written from source
        (n, M), all of them beginning with the ids `start`.

        Token i of a sample is drawn with the i-th uniform of its seed, so no sample depends on its
        neighbours. `temperature` divides the logits; raises ValueError unless it is above 0.
        """
        device = next(self.parameters()).device
        choose = sampled(seeds, self.length, temperature, device, stream=0)
        first = torch.full((len(seeds), 1), BOS, device=device)
        if source is not None:
            first = torch.cat([source.to(device), first], dim=1)
        seen, cache = (first != PAD).long(), None

        def advance(last: Tensor | None) -> Tensor:
            nonlocal seen, cache
            if last is not None:
                seen = F.pad(seen, (0, 1), value=1)
            ids = first if last is None else last
            out = self.model(
                input_ids=ids,
                attention_mask=seen,
                position_ids=_places(seen)[:, -ids.shape[1] :],
                past_key_values=cache,
                use_cache=True,
            )
            cache = out.past_key_values
            return out.logits[:, -1]

        return write_rows(advance, choose, len(seeds), self.length, device, start)


def _places(seen: Tensor) -> Tensor:
    """Which tokens are seen (B, M), 0 or 1 -> the place of each among them, from 0."""
    return (seen.cumsum(1) - 1).clamp(min=0)
