"""Rows of tokens that an automaton accepts, how probable they are, and the best of them.

A denoiser of categorical data says p(w | x_t) for each place by itself. The probability that such a
row satisfies a regular condition is a sum over the paths of an automaton, as in a hidden Markov
model (Rabiner 1989, sec. III): no classifier, and no approximation beyond the independence that the
denoiser states.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FLOOR = -70.0  # the least log-probability of a token: what is asked for is never impossible
NEVER = -1e9  # log of a probability of 0, finite, so that gradients are
MOST_STATES = 4096


@dataclass(frozen=True)
class Automaton:
    """A deterministic automaton over token ids that starts in state 0.

    classes (V,): the class of each token, in [0, C). moves (S, C): the next state. accepts (S,):
    whether a row may end there.
    """

    classes: Tensor
    moves: Tensor
    accepts: Tensor

    def accepts_row(self, ids: Sequence[int]) -> bool:
        """Whether the automaton accepts these token ids."""
        state = 0
        for token in ids:
            state = int(self.moves[state, self.classes[token]])
        return bool(self.accepts[state])

    def possible(self, length: int) -> bool:
        """Whether it accepts any row of this length."""
        here = torch.zeros(len(self.moves), dtype=torch.bool)
        here[0] = True
        for _ in range(length):
            after = torch.zeros_like(here)
            after[self.moves[here].flatten()] = True
            here = after
        return bool((here & self.accepts).any())


def build(
    kinds: Tensor,
    start: Hashable,
    step: Callable[[Hashable, int], Hashable],
    accepts: Callable[[Hashable], bool],
) -> Automaton:
    """The automaton of the states that `step` reaches from `start`, over token kinds (V,).

    `step(state, kind)` is the next state. ValueError when there are more than MOST_STATES.
    """
    present, classes = kinds.unique(return_inverse=True)
    numbers: dict[Hashable, int] = {start: 0}
    states, moves = [start], []
    for state in states:  # grows while it is walked
        row: list[int] = []
        for kind in present.long().tolist():
            after = step(state, kind)
            if after not in numbers:
                numbers[after] = len(states)
                states.append(after)
                if len(states) > MOST_STATES:
                    raise ValueError(f"more than {MOST_STATES} states")
            row.append(numbers[after])
        moves.append(row)
    ends = torch.tensor([accepts(state) for state in states])
    return Automaton(classes, torch.tensor(moves), ends)


def both(a: Automaton, b: Automaton) -> Automaton:
    """The rows that both accept. ValueError when that takes more than MOST_STATES states."""
    size = b.moves.shape[1]

    def step(state: Hashable, kind: int) -> Hashable:
        assert isinstance(state, tuple)
        first, second = state
        return (int(a.moves[first, kind // size]), int(b.moves[second, kind % size]))

    def accepts(state: Hashable) -> bool:
        assert isinstance(state, tuple)
        first, second = state
        return bool(a.accepts[first] & b.accepts[second])

    return build(a.classes * size + b.classes, (0, 0), step, accepts)


@dataclass(frozen=True)
class Automata:
    """One automaton for each of B rows, filled up to common sizes: classes (B, V), moves (B, S, C),
    accepts (B, S)."""

    classes: Tensor
    moves: Tensor
    accepts: Tensor

    @classmethod
    def of(cls, parts: Sequence[Automaton]) -> "Automata":
        """Put together; the states that fill one up are never reached."""
        S = max(part.moves.shape[0] for part in parts)
        C = max(part.moves.shape[1] for part in parts)
        moves = torch.zeros(len(parts), S, C, dtype=torch.long)
        accepts = torch.zeros(len(parts), S, dtype=torch.bool)
        for row, part in enumerate(parts):
            states, kinds = part.moves.shape
            moves[row, :states, :kinds] = part.moves
            accepts[row, :states] = part.accepts
        return cls(torch.stack([part.classes for part in parts]), moves, accepts)

    def __getitem__(self, rows: slice) -> "Automata":
        return Automata(self.classes[rows], self.moves[rows], self.accepts[rows])

    def repeat(self, times: int) -> "Automata":
        """Every row `times` in turn."""
        parts = (self.classes, self.moves, self.accepts)
        return Automata(*(part.repeat_interleave(times, 0) for part in parts))

    def to(self, device: torch.device) -> "Automata":
        return Automata(*(part.to(device) for part in (self.classes, self.moves, self.accepts)))


def log_accepted(log_probs: Tensor, automata: Automata) -> Tensor:
    """log p(token at each place) (B, L, V), independent -> log p(each row is accepted) (B,), in
    float64. Its gradient to log_probs is the law of the tokens given acceptance."""
    B, L, _ = log_probs.shape
    S, C = automata.moves.shape[1:]
    p = log_probs.double().clamp(min=FLOOR)
    classes = automata.classes[:, None].expand_as(p)
    kinds = log_sums(p.flatten(0, 1), classes.flatten(0, 1), C).view(B, L, C)
    moves = automata.moves.flatten(1)
    to_go = p.new_zeros(B, S).masked_fill(~automata.accepts, NEVER)
    for kind in reversed(kinds.unbind(1)):
        to_go = (to_go.gather(1, moves).view(B, S, C) + kind[:, None]).logsumexp(2)
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
    S, C = automata.moves.shape[1:]
    classes = automata.classes[:, None].expand_as(scores)
    of_class = scores.new_full((B, L, C), -torch.inf).scatter_reduce_(2, classes, scores, "amax")
    best = scores.new_full((B, S), -torch.inf)
    best[:, 0] = 0.0
    targets, came = automata.moves.flatten(1), []
    for i in range(L):
        tried = (best[:, :, None] + of_class[:, i, None]).flatten(1)
        best = scores.new_full((B, S), -torch.inf).scatter_reduce_(1, targets, tried, "amax")
        wins = tried == best.gather(1, targets)
        order = torch.arange(S * C, device=scores.device).expand(B, -1).where(wins, -1)
        came.append(
            torch.full((B, S), -1, device=scores.device).scatter_reduce_(1, targets, order, "amax")
        )
    state = best.masked_fill(~automata.accepts, -torch.inf).argmax(1, keepdim=True)
    kinds: list[Tensor] = []
    for i in reversed(range(L)):
        move = came[i].gather(1, state)
        kinds.append(move % C)
        state = move // C
    chosen = torch.stack(kinds[::-1], 1)  # (B, L, 1)
    return scores.masked_fill(classes != chosen, -torch.inf).argmax(-1)
