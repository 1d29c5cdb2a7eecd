"""Regular conditions on rows of tokens: deterministic automata, and the rows that two accept."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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

    def alive(self) -> Tensor:
        """(S,): whether a row may still be accepted from this state."""
        alive = self.accepts
        while True:
            more = alive | alive[self.moves].any(1)
            if bool((more == alive).all()):
                return alive
            alive = more

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
    first, second = _living_moves(a), _living_moves(b)

    def step(state: Hashable, kind: int) -> Hashable:
        if not isinstance(state, tuple):
            return None
        after = (first[state[0]][kind // size], second[state[1]][kind % size])
        return None if None in after else after

    def accepts(state: Hashable) -> bool:
        return isinstance(state, tuple) and bool(a.accepts[state[0]] & b.accepts[state[1]])

    return build(a.classes * size + b.classes, (0, 0), step, accepts)


def _living_moves(automaton: Automaton) -> list[list[int | None]]:
    """Its moves; None leads to where no row is accepted any more."""
    alive = automaton.alive().tolist()
    return [[s if alive[s] else None for s in row] for row in automaton.moves.tolist()]
