"""Control of words beside the exact conditional: a table of `python -m benchmarks.guidance`.

Sentences of a mixture of topics: a topic is drawn, then every word by itself from that topic's law
of its place, so that with two topics words depend on each other. Everything is known at every noise
level: with q_k the posterior of topic k at x_t and p_kl that of the word at place l under it,

    E[x0 | x_t] = sum_k q_k sum_w p_kl(w) E_w,   p(accepted | x_t) = sum_k q_k P(accepted | p_k).

A row that an automaton accepts, or a topic ("tone"), is asked for, and how far samples are from the
exact conditional is measured over all rows written out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.tables import Column, Table
from shared import noise
from shared.denoiser import Denoise, Denoiser
from shared.guidance import classifier, classifier_hook, gradient_control
from shared.guidance.control import along
from shared.guidance.gradients import LogProb
from shared.schedule import Cosine, Level, variance_preserving
from shared.solver import sample
from shared.solver.step import StepHook
from text.codec import Embedding
from text.control import Automata, Automaton, controlled
from text.control.automaton import build
from text.control.paths import log_accepted

SCHEDULE = Cosine(-10, 10)
UNTIL = 0.05  # the time at which Diffusion-LM's updates stop
CLEAR = variance_preserving(torch.tensor(2.0, dtype=torch.float64))  # see `through`
V, L, D = 5, 4, 4
ASKED, TOPIC = 4, 0  # the word that a row must hold, and the topic asked for


class Topics(Denoiser):
    """The exact logits of a mixture of topics: weights (K,), p (K, L, V), in an embedding codec."""

    def __init__(self, codec: Embedding, weights: Tensor, p: Tensor) -> None:
        super().__init__(torch.nn.Identity(), "categorical", codec=codec)
        self.words, self.weights, self.p = codec, weights, p

    def posterior(self, x_t: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """log q (B, K) of the topics at x_t (B, L, D), log p (B, K, L, V) of the words in each."""
        joint = self.words.evidence(x_t, level)[:, None] + self.p.log()
        likely = joint.logsumexp(-1, keepdim=True)
        topics = self.weights.log() + likely.sum((-2, -1))
        return topics.log_softmax(-1), joint - likely

    def output(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        topics, laws = self.posterior(x_t, level)
        return (topics[..., None, None] + laws).logsumexp(1)

    def estimate(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        """E[x0 | x_t], with a gradient."""
        return self.words.mean(self.output(x_t, level))

    def accepted(self, automata: Automata) -> LogProb:
        """log p_t(each row is accepted | x_t), one automaton a row."""

        def log_prob(x_t: Tensor, level: Level, condition: Tensor | None) -> Tensor:
            topics, laws = self.posterior(x_t, level)
            chances = [log_accepted(law, automata) for law in laws.unbind(1)]
            return (topics + torch.stack(chances, 1)).logsumexp(1)

        return log_prob

    def of_topic(self, topic: int) -> LogProb:
        """log p_t(topic | x_t)."""
        return lambda x_t, level, condition: self.posterior(x_t, level)[0][:, topic]

    def rows(self) -> Tensor:
        """All rows (V^L, L)."""
        _, length, size = self.p.shape
        return torch.cartesian_prod(*[torch.arange(size)] * length)

    def law(self) -> Tensor:
        """p(topic, row), (K, V^L)."""
        rows = self.rows()
        return self.weights[:, None] * self.p[:, torch.arange(rows.shape[1]), rows].prod(-1)


def topics(many: int) -> Topics:
    """A mixture of 1 or 2 topics, the same everywhere in a row, drawn once and for all."""
    seeded = torch.Generator().manual_seed(6)
    codec = Embedding(V, L, D).double()
    codec.weight.data = torch.randn(V, D, generator=seeded, dtype=torch.float64)
    p = torch.randn(2, 1, V, generator=seeded, dtype=torch.float64).mul(2.5).softmax(-1)
    weights = torch.tensor(([1.0], [0.4, 0.6])[many - 1], dtype=torch.float64)
    return Topics(codec, weights, p[-many:].expand(-1, L, -1))


def holds(word: int, size: int = V) -> Automaton:
    """Rows that hold the word."""
    kinds = (torch.arange(size) == word).long()
    return build(kinds, False, lambda state, kind: bool(state) or kind == 1, bool)


def through(oracle: Topics, log_prob: LogProb) -> LogProb:
    """log p(y | x0_hat), a classifier of clear words (logsnr 2, where its gradient does not vanish)
    held against the estimate: the gradient goes through the denoiser."""

    def of_estimate(x_t: Tensor, level: Level, condition: Tensor | None) -> Tensor:
        return log_prob(CLEAR.alpha * oracle.estimate(x_t, level), CLEAR, condition)

    return of_estimate


@dataclass(frozen=True)
class Method:
    """How sentences of an oracle are made to satisfy what is asked for."""

    name: str
    wrap: Callable[[Topics, LogProb, Automata | None], Denoise]
    hook: Callable[[LogProb], StepHook] | None = None
    words: bool = False  # whether it takes an automaton
    gradients: int = 1  # a step


def _free(oracle: Topics, log_prob: LogProb, automata: Automata | None) -> Denoise:
    return oracle.estimate


def _own_laws(oracle: Topics, log_prob: LogProb, automata: Automata | None) -> Denoise:
    assert automata is not None
    return controlled(oracle, automata)


def signs(log_prob: LogProb) -> StepHook:
    """Diffusion-LM's updates: steps of the sign of each coordinate's gradient."""
    return gradient_control(log_prob, _until())


def slopes(log_prob: LogProb) -> StepHook:
    """The same along the gradient."""
    return gradient_control(log_prob, _until(), direction=along)


def _until() -> float:
    return float(SCHEDULE.logsnr(torch.tensor(UNTIL, dtype=torch.float64)))


METHODS = (
    Method("exact classifier (Alg. 2)", lambda o, y, a: classifier(o.estimate, y)),
    Method("exact classifier (Alg. 1)", _free, classifier_hook),
    Method("automaton over the model's own laws of words", _own_laws, words=True),
    Method("gradient through x0_hat", lambda o, y, a: classifier(o.estimate, through(o, y))),
    Method("Diffusion-LM's 3 updates of 0.1, signs", _free, signs, gradients=3),
    Method("the same along the gradient", _free, slopes, gradients=3),
)


def words(n: int, steps: int) -> Table:
    """Every method, asked for a word of independent words, and for a word and a topic of two."""
    rows = [
        measured(topics(many), n, steps, method, tone)
        for many, tone in ((1, False), (2, False), (2, True))
        for method in METHODS
        if not (method.words and tone)
    ]
    return Table(
        "Control of words, exact estimates and classifier",
        f"{n} sentences of {L} words out of {V}, {steps} ancestral steps. Asked for: a word "
        "somewhere, or a topic, under independent words (1 topic) or dependent ones (2). Distance: "
        "total variation between the rows that were sampled and the exact conditional, all rows "
        "written out, and what as many exact samples have; agreement: mean p(y | row), and that of "
        "the exact conditional. "
        "Gradients of the classifier per step, but none in the last of them.",
        (
            Column("method", "method"),
            Column("topics", "topics"),
            Column("asked", "asked"),
            Column("gradients", "gradients"),
            Column("distance", "distance", ".3f"),
            Column("distance_exact", "of exact samples", ".3f"),
            Column("agreement", "agreement", ".3f"),
            Column("agreement_exact", "exact", ".3f"),
        ),
        rows,
    )


def measured(oracle: Topics, n: int, steps: int, method: Method, tone: bool) -> dict[str, Any]:
    """A method's row: n sentences that are asked for the topic, or else for the word."""
    automata = Automata.of([holds(ASKED)] * n)
    log_prob = oracle.of_topic(TOPIC) if tone else oracle.accepted(automata)
    law = oracle.law()
    y = law[TOPIC] / law.sum(0) if tone else (oracle.rows() == ASKED).any(1).double()
    exact = law.sum(0) * y / (law.sum(0) * y).sum()
    hooks = [] if method.hook is None else [method.hook(log_prob)]
    x0 = draw(oracle, method.wrap(oracle, log_prob, automata), n, steps, hooks)
    counts = counted(oracle, oracle.words.decode(x0))
    drawn = torch.multinomial(exact, n, True, generator=torch.Generator().manual_seed(0))
    return {
        "method": method.name,
        "topics": len(oracle.weights),
        "asked": "topic" if tone else "word",
        "gradients": method.gradients,
        "distance": apart(counts, exact),
        "distance_exact": apart(torch.bincount(drawn, minlength=len(exact)), exact),
        "agreement": float(counts.double() @ y) / n,
        "agreement_exact": float(exact @ y),
    }


def draw(
    oracle: Topics, denoise: Denoise, n: int, steps: int, hooks: Sequence[StepHook] = ()
) -> Tensor:
    """n ancestral samples of x0, seeds from 0."""
    x_1 = noise.normal(range(n), 0, oracle.words.latent_shape).double()
    with torch.no_grad():
        return sample(denoise, x_1, SCHEDULE, "ancestral", steps, seeds=range(n), hooks=hooks)


def counted(oracle: Topics, ids: Tensor) -> Tensor:
    """How often each of `oracle.rows()` is among ids (n, L)."""
    _, length, size = oracle.p.shape
    places = size ** torch.arange(length - 1, -1, -1)
    return torch.bincount(ids @ places, minlength=size**length)


def apart(counts: Tensor, law: Tensor) -> float:
    """Total variation between shares of rows and their law."""
    return float((counts / counts.sum() - law).abs().sum()) / 2
