"""The networks of a sentence autoencoder: BERT-shaped encoder, GPT-2-shaped decoder, from scratch.

A perceiver resampler (Alayrac et al. 2022, sec. 2.2) reads the encoder's states into k vectors, of
which q(z | x) = N(mean, std^2) is made (Kingma & Welling 2014). k = 1 is Optimus' and LatentOps'
latent (Li et al. 2020; Liu et al. 2022), k > 1 that of latent diffusion for language (Lovelace et
al. 2023). The decoder is told z twice, as in Optimus (sec. 3.1): as memory, k tokens before the
sentence, and in the embedding of every word.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.config import NetConfig
from shared.nets.attention import Attention
from shared.nets.condition import layer_norm
from shared.objective.streams import DECODE
from shared.tokenizer import BOS, PAD
from text.config import AutoencoderConfig
from text.generation import Choose, gpt2, likeliest, sampled, write_rows

START_LOG_VARIANCE = -3.0  # of q(z | x): little noise at first, so that the decoder meets a signal


class Resampler(nn.Module):
    """Tokens (B, M, dim), seen (B, M) bool -> `count` vectors (B, count, dim): learned queries
    attend to the tokens and, when there are several, to each other."""

    def __init__(self, count: int, dim: int, heads: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(count, dim) * 0.02)
        self.attention = Attention(dim, heads, rotary=None)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, tokens: Tensor, seen: Tensor) -> Tensor:
        x = self.queries.expand(len(tokens), -1, -1)
        every = torch.cat([tokens, x], dim=1)
        mask = F.pad(seen, (0, x.shape[1]), value=True)[:, None, None, :]
        x = x + self.attention(layer_norm(x), layer_norm(every), mask)
        return x + self.mlp(layer_norm(x))


class SentenceNetwork(nn.Module):
    """Rows of ids (B, L), L <= length, <-> latents z (B, latents, dim)."""

    def __init__(self, size: int, length: int, config: AutoencoderConfig, net: NetConfig) -> None:
        from transformers import BertConfig, BertModel  # seconds

        super().__init__()
        self.size, self.length = size, length
        self.latent_shape = (config.latents, config.dim)
        read = BertConfig(
            vocab_size=size,
            hidden_size=net.dim,
            num_hidden_layers=net.depth,
            num_attention_heads=net.heads,
            intermediate_size=4 * net.dim,
            max_position_embeddings=length,
            hidden_dropout_prob=net.dropout,
            attention_probs_dropout_prob=net.dropout,
            pad_token_id=PAD,
        )
        read._attn_implementation = "eager"  # as in `text.generation.gpt2`
        self.encoder = BertModel(read, add_pooling_layer=False)
        self.resampler = Resampler(config.latents, net.dim, net.heads)
        self.head = nn.Linear(net.dim, 2 * config.dim)
        self.memory = nn.Linear(config.dim, net.dim)
        self.told = nn.Linear(config.latents * config.dim, net.dim)
        self.decoder = gpt2(size, config.latents + length, net)
        # means that differ from sentence to sentence at once: what says nothing stays unheard
        nn.init.normal_(self.head.weight[: config.dim], std=2 * net.dim**-0.5)
        nn.init.constant_(self.head.bias[config.dim :], START_LOG_VARIANCE)

    def encode(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids (B, L) -> mean and log-variance of q(z | x), (B, latents, dim), float32."""
        seen = ids != PAD
        states = self.encoder(input_ids=ids, attention_mask=seen.long()).last_hidden_state
        mean, log_variance = self.head(self.resampler(states, seen)).float().chunk(2, dim=-1)
        return mean, log_variance

    def nll(self, ids: Tensor, z: Tensor) -> Tensor:
        """-log p of each token given those before it and z, nats, (B, L), float32; zero where ids
        (B, L) is PAD."""
        before = F.pad(ids[:, :-1], (1, 0), value=BOS)
        # PAD comes last: causal attention hides it
        given = torch.cat([self.memory(z), self._embedded(before, z)], dim=1)
        logits = self.decoder(inputs_embeds=given).logits[:, z.shape[1] :]
        losses = F.cross_entropy(logits.float().transpose(1, 2), ids, reduction="none")
        return losses.masked_fill(ids == PAD, 0.0)

    @torch.no_grad()
    def write(
        self, z: Tensor, seeds: Sequence[int] | None = None, temperature: float = 1.0
    ) -> Tensor:
        """z (B, latents, dim) -> rows of ids (B, length): the likeliest token each time, or with
        seeds, one a row, draws. ValueError unless temperature is above 0."""
        choose: Choose = likeliest
        if seeds is not None:
            choose = sampled(seeds, self.length, temperature, z.device, DECODE)
        cache = None

        def advance(last: Tensor | None) -> Tensor:
            nonlocal cache
            if last is None:
                first = torch.full((len(z), 1), BOS, device=z.device)
                given = torch.cat([self.memory(z), self._embedded(first, z)], dim=1)
            else:
                given = self._embedded(last, z)
            out = self.decoder(inputs_embeds=given, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            return out.logits[:, -1]

        return write_rows(advance, choose, len(z), self.length, z.device)

    def _embedded(self, ids: Tensor, z: Tensor) -> Tensor:
        words = self.decoder.transformer.wte(ids)
        return words + self.told(z.flatten(1)).unsqueeze(1)
