"""A batch of automata: how probable the rows are that each accepts, and the best of them.

A denoiser of categorical data says p(w | x_t) for each place by itself. The probability that such a
row satisfies a regular condition is a sum over the paths of an automaton, as in a hidden Markov
model (Rabiner 1989, sec. III): no classifier, and no approximation beyond the independence that the
denoiser states.

Between two states all tokens that lead from one to the other are one edge with a set of tokens, and
states that never accept are left out: an automaton of n words in a row has about n edges, whatever
the vocabulary. The same automaton is held once, however many rows ask for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from shared.tokenizer import BOS, EOS, PAD
from text.control.automaton import Automaton

FLOOR = -70.0  # the least log-probability of a token: what is asked for is never impossible
NEVER = -1e9  # log of a probability of 0, finite, so that gradients are


@dataclass(frozen=True)
class Automata:
    """Each of B rows has one of A automata, filled up to common sizes: `which` (B,) says which.

    classes (A, V): the class of each token, in [0, C). sets (A, K, C): what classes a set holds.
    source, target, label (A, E): the edges, from state to state by a token of the set `label`; the
    last state, S - 1, is no automaton's: edges that fill up lead from it to itself. accepts (A, S).
    """

    which: Tensor
    classes: Tensor
    sets: Tensor
    source: Tensor
    target: Tensor
    label: Tensor
    accepts: Tensor

    @classmethod
    def of(cls, parts: Sequence[Automaton]) -> "Automata":
        """One automaton a row; the same object is held once. Each must accept some row."""
        numbers: dict[int, int] = {}
        which = [numbers.setdefault(id(part), len(numbers)) for part in parts]
        distinct = {id(part): part for part in parts}
        edges = [_Edges.of(distinct[key]) for key in numbers]
        S = 1 + max(len(part.accepts) for part in edges)
        shape = (max(len(e.sets) for e in edges), max(e.sets.shape[1] for e in edges))
        E, A = max(e.moves.shape[1] for e in edges), len(edges)
        sets = torch.zeros(A, *shape, dtype=torch.bool)
        moves = torch.tensor([S - 1, S - 1, 0])[None, :, None].repeat(A, 1, E)
        accepts = torch.zeros(A, S, dtype=torch.bool)
        for i, part in enumerate(edges):
            sets[i, : len(part.sets), : part.sets.shape[1]] = part.sets
            moves[i, :, : part.moves.shape[1]] = part.moves
            accepts[i, : len(part.accepts)] = part.accepts
        classes = torch.stack([distinct[key].classes for key in numbers])
        source, target, label = moves.unbind(1)
        return cls(torch.tensor(which), classes, sets, source, target, label, accepts)

    def __len__(self) -> int:
        return len(self.which)

    @property
    def size(self) -> int:
        """Of the vocabulary."""
        return self.classes.shape[1]

    def __getitem__(self, rows: slice) -> "Automata":
        used, which = self.which[rows].unique(return_inverse=True)
        return Automata(which, *(part[used] for part in self._parts()))

    def repeat(self, times: int) -> "Automata":
        """Every row `times` in turn."""
        return Automata(self.which.repeat_interleave(times), *self._parts())

    def to(self, device: torch.device) -> "Automata":
        return Automata(*(part.to(device) for part in (self.which, *self._parts())))

    def _parts(self) -> tuple[Tensor, ...]:
        return (self.classes, self.sets, self.source, self.target, self.label, self.accepts)

    @cached_property
    def members(self) -> Tensor:
        """(B, V, K) float32: 1 where a token is in a set."""
        held = torch.stack(
            [kinds[:, classes] for kinds, classes in zip(self.sets, self.classes, strict=True)]
        )
        return held.transpose(1, 2).float()[self.which]

    def edges(self) -> tuple[Tensor, Tensor, Tensor]:
        """source, target, label of every row, each (B, E)."""
        return self.source[self.which], self.target[self.which], self.label[self.which]


@dataclass(frozen=True)
class _Edges:
    """An automaton without the states that no accepted row passes: moves (3, E) are source, target
    and label of each edge, sets (K, C), accepts (S,)."""

    moves: Tensor
    sets: Tensor
    accepts: Tensor

    @classmethod
    def of(cls, automaton: Automaton) -> "_Edges":
        kept = automaton.alive().nonzero().flatten().tolist()
        if 0 not in kept:
            raise ValueError("an automaton accepts no row at all")
        numbers = {state: i for i, state in enumerate(kept)}
        C = automaton.moves.shape[1]
        held: dict[tuple[int, int], list[int]] = {}
        for state in kept:
            for kind, after in enumerate(automaton.moves[state].tolist()):
                if after in numbers:
                    held.setdefault((numbers[state], numbers[after]), []).append(kind)
        labels: dict[tuple[int, ...], int] = {}
        rows = [
            (*ends, labels.setdefault(tuple(kinds), len(labels))) for ends, kinds in held.items()
        ]
        sets = torch.zeros(len(labels), C, dtype=torch.bool)
        for kinds, label in labels.items():
            sets[label, list(kinds)] = True
        return cls(torch.tensor(rows).T, sets, automaton.accepts[kept])


def possible_lengths(automata: Automata, places: int) -> Tensor:
    """(B, places) bool: whether each accepts a row of so many tokens, 1 or more, EOS and PAD."""
    held = torch.stack(
        [sets[:, each] for sets, each in zip(automata.sets, automata.classes, strict=True)]
    )
    words = torch.ones(automata.size, dtype=torch.bool)
    words[[PAD, BOS, EOS]] = False
    source, target, label = automata.source, automata.target, automata.label

    def edges(tokens: Tensor | list[int]) -> Tensor:
        return held[..., tokens].any(-1).gather(1, label).int()

    def moved(states: Tensor, allowed: Tensor, at: Tensor, to: Tensor) -> Tensor:
        reached = states.gather(1, at) * allowed
        return torch.zeros_like(states).scatter_reduce_(1, to, reached, "amax")

    word, end, pad = edges(words), edges([EOS]), edges([PAD])
    done = [automata.accepts.int()]  # by how many PAD are still to come
    for _ in range(places - 1):
        done.append(moved(done[-1], pad, target, source))
    here = torch.zeros_like(done[0])
    here[:, 0] = 1
    found: list[Tensor] = []
    for after in reversed(done):
        found.append((moved(here, end, source, target) * after).any(1))
        here = moved(here, word, source, target)
    found[0] = torch.zeros_like(found[0])
    return torch.stack(found, 1)[automata.which]


def log_accepted(log_probs: Tensor, automata: Automata) -> Tensor:
    """log p(token at each place) (B, L, V), independent -> log p(each row is accepted) (B,), in
    float64. Its gradient to log_probs is the law of the tokens given acceptance."""
    members = automata.members.to(log_probs)
    chances = log_probs.clamp(min=FLOOR).exp().bmm(members).double()
    source, target, label = automata.edges()
    # what fills sets up holds no token: its 0 becomes a number, for the gradient of the log
    edges = (
        chances.clamp(min=torch.finfo(torch.float32).tiny)
        .log()
        .gather(2, label[:, None].expand(-1, chances.shape[1], -1))
    )
    accepts = automata.accepts[automata.which]
    to_go = edges.new_zeros(accepts.shape).masked_fill(~accepts, NEVER)
    for edge in reversed(edges.unbind(1)):
        to_go = log_sums(to_go.gather(1, target) + edge, source, accepts.shape[1])
    return to_go[:, 0]


def log_sums(x: Tensor, places: Tensor, size: int) -> Tensor:
    """Logs x (B, N) added up, as numbers, at places (B, N) in [0, size) -> logs (B, size)."""
    top = x.new_full((len(x), size), NEVER).scatter_reduce_(1, places, x.detach(), "amax")
    sums = torch.zeros_like(top).scatter_add(1, places, (x - top.gather(1, places)).exp())
    return torch.where(sums > 0, top + sums.clamp(min=1e-300).log(), NEVER)


def best_row(scores: Tensor, automata: Automata) -> Tensor:
    """Scores of tokens (B, L, V) -> the accepted rows of ids (B, L) with the largest sum (Viterbi).
    Every automaton must accept some row of length L."""
    B, L, _ = scores.shape
    members = automata.members.transpose(1, 2).bool()  # (B, K, V)
    of_set = torch.stack(
        [scores.masked_fill(~held[:, None], -torch.inf).amax(2) for held in members.unbind(1)], 2
    )
    source, target, label = automata.edges()
    accepts = automata.accepts[automata.which]
    best = scores.new_full(accepts.shape, -torch.inf)
    best[:, 0] = 0.0
    came: list[Tensor] = []
    for i in range(L):
        tried = best.gather(1, source) + of_set[:, i].gather(1, label)
        best = torch.full_like(best, -torch.inf).scatter_reduce_(1, target, tried, "amax")
        wins = tried == best.gather(1, target)
        order = torch.arange(source.shape[1], device=scores.device).expand(B, -1).where(wins, 0)
        came.append(
            torch.zeros_like(accepts, dtype=torch.long).scatter_reduce_(1, target, order, "amax")
        )
    state = best.masked_fill(~accepts, -torch.inf).argmax(1, keepdim=True)
    chosen: list[Tensor] = []
    for edges in reversed(came):
        edge = edges.gather(1, state)
        chosen.append(label.gather(1, edge))
        state = source.gather(1, edge)
    held = members.gather(1, torch.cat(chosen[::-1], 1)[..., None].expand(-1, -1, automata.size))
    return scores.masked_fill(~held, -torch.inf).argmax(-1)
