"""Rows of ids from left to right, and GPT-2's shape: what every decoder of sentences shares."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from shared import noise
from shared.config import NetConfig
from shared.tokenizer import BOS, EOS, PAD

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

Advance = Callable[[Tensor | None], Tensor]  # last ids (n, 1), None at first -> logits (n, V)
Choose = Callable[[Tensor, int], Tensor]  # logits (n, V) of token i -> ids (n,)


def write_rows(
    advance: Advance,
    choose: Choose,
    n: int,
    length: int,
    device: torch.device,
    start: Sequence[int] = (),
) -> Tensor:
    """Rows of ids (n, length) that all begin with the ids `start`; what follows EOS is PAD."""
    rows = torch.full((n, length), PAD, device=device)
    running = torch.ones(n, dtype=torch.bool, device=device)
    last = None
    for i in range(length):
        logits = advance(last).double()
        logits[:, [PAD, BOS]] = -torch.inf  # never targets in training
        chosen = choose(logits, i).masked_fill(~running, PAD)
        if i < len(start):
            chosen = torch.full_like(chosen, start[i])
        rows[:, i] = chosen
        running &= chosen != EOS
        last = chosen[:, None]
        if not running.any():
            break
    return rows


def likeliest(logits: Tensor, i: int) -> Tensor:
    """Greedy: the likeliest id of each row."""
    return logits.argmax(-1)


def sampled(
    seeds: Sequence[int], length: int, temperature: float, device: torch.device, stream: int
) -> Choose:
    """Draws: token i of a row with the i-th uniform of its seed in a stream of `noise`, so that no
    row depends on its neighbours. `temperature` divides the logits; ValueError unless it is above
    0."""
    if not temperature > 0:
        raise ValueError(f"temperature = {temperature}: expected a number above 0")
    uniforms = noise.uniform(seeds, stream, (length,), device=device).double()

    def choose(logits: Tensor, i: int) -> Tensor:
        reached = (logits / temperature).softmax(-1).cumsum(-1) >= uniforms[:, i, None]
        return reached.int().argmax(-1)

    return choose


def gpt2(size: int, places: int, config: NetConfig) -> "GPT2LMHeadModel":
    """A fresh model of GPT-2's shape (Radford et al. 2019) over `size` words and so many places."""
    from transformers import GPT2Config, GPT2LMHeadModel  # seconds, which others need not wait

    shape = GPT2Config(
        vocab_size=size,
        n_positions=places,
        n_embd=config.dim,
        n_layer=config.depth,
        n_head=config.heads,
        resid_pdrop=config.dropout,
        embd_pdrop=config.dropout,
        attn_pdrop=config.dropout,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    # torch's fused attention is several times slower backwards in bfloat16 on CPUs
    shape._attn_implementation = "eager"
    return GPT2LMHeadModel(shape)
