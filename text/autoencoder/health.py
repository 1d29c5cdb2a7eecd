"""Whether an autoencoder's latents say anything: posterior collapse, measured.

    KL      E KL(q(z | x) || N(0, I)), nats
    units   coordinates whose mean varies over sentences: variance above 0.01 (Burda et al. 2016)
    I(x; z) E log q(z | x) - log mean_x' q(z | x'), nats: an estimate (Hoffman & Johnson 2016), at
            most ln N for N sentences
    gain    nats of a sentence that another one's latent costs the decoder

The first three see an encoder that says nothing, the last a decoder that does not listen.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.errors import DataError
from text.autoencoder.learner import kl_terms
from text.autoencoder.network import SentenceNetwork

MOST = 1024  # sentences
ROWS = 256  # that a network takes at once
ROOM = 2**22  # numbers that information takes at once: 32 MiB
ACTIVE = 0.01  # variance of an active unit's mean
LEAST_NATS = 0.5  # of KL, information and gain


@dataclass(frozen=True)
class Health:
    """What was measured, on so many sentences."""

    sentences: int
    kl_nats: float
    active_units: int
    units: int
    information_nats: float
    gain_nats: float

    @property
    def collapsed(self) -> bool:
        """Whether latents hardly differ from one sentence to another."""
        nats = min(self.kl_nats, self.information_nats)
        return self.active_units == 0 or nats < LEAST_NATS

    @property
    def ignored(self) -> bool:
        """Whether the decoder does as well with any other latent."""
        return self.gain_nats < LEAST_NATS

    def told(self) -> str:
        """All of it in words, for messages."""
        return (
            f"KL {self.kl_nats:.3g} nats, {self.active_units} of {self.units} units active, "
            f"I(x; z) about {self.information_nats:.3g} nats, the decoder gains "
            f"{self.gain_nats:.3g} nats a sentence by its latent"
        )


@torch.no_grad()
def posteriors(network: SentenceNetwork, ids: Tensor) -> tuple[Tensor, Tensor]:
    """ids (N, L) -> mean and log-variance of q(z | x), (N, latents, dim), in small batches."""
    parts = [network.encode(part) for part in ids.split(ROWS)]
    means, log_variances = zip(*parts, strict=True)
    return torch.cat(means), torch.cat(log_variances)


@torch.no_grad()
def examine(network: SentenceNetwork, ids: Tensor, seed: int = 0) -> Health:
    """The health of a network on sentences ids (N, L), the first MOST of them. DataError for
    fewer than two."""
    if len(ids) < 2:
        raise DataError(
            f"{len(ids)} sentence: whether latents tell one from another is measured on two or "
            "more; give more sentences that fit data.length"
        )
    ids = ids[:MOST]
    mean, log_variance = posteriors(network, ids)
    eps = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed)).to(mean)
    z = mean + (log_variance / 2).exp() * eps
    own, others = (_nats(network, ids, some) for some in (z, z.roll(1, 0)))
    return Health(
        sentences=len(ids),
        kl_nats=float(kl_terms(mean, log_variance).double().flatten(1).sum(1).mean()),
        active_units=int((mean.flatten(1).double().var(0) > ACTIVE).sum()),
        units=mean[0].numel(),
        information_nats=information(mean.flatten(1), log_variance.flatten(1), z.flatten(1)),
        gain_nats=float((others - own).double().mean()),
    )


def _nats(network: SentenceNetwork, ids: Tensor, z: Tensor) -> Tensor:
    pairs = zip(ids.split(ROWS), z.split(ROWS), strict=True)
    return torch.cat([network.nll(some, at).sum(1) for some, at in pairs])


def information(mean: Tensor, log_variance: Tensor, z: Tensor) -> float:
    """I(x; z) in nats from one draw z (N, D) of each posterior N(mean, e^log_variance), (N, D)."""
    mean, log_variance, z = mean.double(), log_variance.double(), z.double()
    rows: list[Tensor] = []
    # log q(z_i | x_j) up to a constant that cancels
    for part in z.split(max(1, ROOM // mean.numel())):
        apart = (part[:, None] - mean).square() * (-log_variance).exp()
        rows.append(-(apart + log_variance).sum(-1) / 2)
    log_q = torch.cat(rows)
    return float((log_q.diagonal() - log_q.logsumexp(1)).mean() + math.log(len(z)))
