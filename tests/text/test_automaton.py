"""Automata over tokens against all rows written out."""

import itertools
from collections.abc import Callable, Hashable, Sequence

import pytest
import torch
from torch import Tensor

from text.control.automaton import Automaton, both, build
from text.control.paths import Automata, best_row, log_accepted

V, L = 5, 4
ROWS = torch.tensor(list(itertools.product(range(V), repeat=L)))


def has(token: int) -> Automaton:
    """Rows in which the token occurs."""

    def step(state: Hashable, kind: int) -> Hashable:
        return bool(state) or kind == 1

    return build((torch.arange(V) == token).long(), False, step, bool)


def even(tokens: Sequence[int]) -> Automaton:
    """Rows with an even number of these tokens."""

    def step(state: Hashable, kind: int) -> Hashable:
        assert isinstance(state, int)
        return (state + kind) % 2

    kinds = torch.isin(torch.arange(V), torch.tensor(tokens)).long()
    return build(kinds, 0, step, lambda state: state == 0)


CASES: list[tuple[Automaton, Callable[[list[int]], bool]]] = [
    (has(2), lambda row: 2 in row),
    (even([0, 3]), lambda row: sum(token in (0, 3) for token in row) % 2 == 0),
    (both(has(2), has(4)), lambda row: 2 in row and 4 in row),
    (
        both(both(has(1), even([1, 2])), even([4])),
        lambda row: (
            1 in row and sum(token in (1, 2) for token in row) % 2 == 0 and row.count(4) % 2 == 0
        ),
    ),
]


def laws(n: int, scale: float = 1.5) -> Tensor:
    logits = torch.randn(n, L, V, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return (scale * logits).log_softmax(-1)


def of_rows(log_probs: Tensor) -> Tensor:
    """log p of every row, (B, V^L)."""
    return log_probs[:, torch.arange(L), ROWS].sum(-1)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_it_accepts_the_rows_it_should(case: int):
    automaton, wanted = CASES[case]
    for row in ROWS.tolist():
        assert automaton.accepts_row(row) == wanted(row)


def test_acceptance_is_a_sum_over_the_accepted_rows_and_its_gradient_their_law():
    """One automaton a row, of different sizes."""
    log_probs = laws(len(CASES)).requires_grad_()
    automata = Automata.of([automaton for automaton, _ in CASES])
    chance = log_accepted(log_probs, automata)
    (found,) = torch.autograd.grad(chance.sum(), log_probs)
    log_probs = log_probs.detach()
    joint = of_rows(log_probs).exp()
    for b, (_, wanted) in enumerate(CASES):
        accepted = joint[b] * torch.tensor([wanted(row) for row in ROWS.tolist()])
        assert chance[b].exp().item() == pytest.approx(accepted.sum().item(), rel=1e-12)
        for place in range(L):
            sums = accepted.new_zeros(V).index_add_(0, ROWS[:, place], accepted)
            expected = sums / sums.sum()
            torch.testing.assert_close(found[b, place], expected, atol=1e-13, rtol=1e-9)


def test_best_row_is_the_best_of_the_accepted_rows():
    scores = laws(len(CASES))
    automata = Automata.of([automaton for automaton, _ in CASES])
    found = best_row(scores, automata)
    for b, (automaton, wanted) in enumerate(CASES):
        ok = torch.tensor([wanted(row) for row in ROWS.tolist()])
        best = of_rows(scores)[b].masked_fill(~ok, -torch.inf).argmax()
        assert found[b].tolist() == ROWS[best].tolist()
        assert automaton.accepts_row(found[b].tolist())


def test_what_the_model_excludes_altogether_is_still_found():
    """Hardly possible tokens, at many places: no underflow, no NaN."""
    length = 40

    def step(state: Hashable, kind: int) -> Hashable:
        assert isinstance(state, int)
        return state + 1 if 0 <= state < length and kind == 3 else -1

    exactly = build(torch.arange(V), 0, step, lambda state: state == length)
    log_probs = torch.full((1, length, V), -60.0).requires_grad_()
    chance = log_accepted(log_probs, Automata.of([exactly]))
    (found,) = torch.autograd.grad(chance.sum(), log_probs)
    assert found[0, :, 3].tolist() == [1.0] * length
    assert chance.item() == pytest.approx(-60.0 * length, rel=1e-6)
    impossible = torch.full((1, length, V), -torch.inf)
    least = log_accepted(impossible, Automata.of([exactly])).item()
    assert least == pytest.approx(-70.0 * length, rel=1e-8)


def test_possible_lengths():
    pair = both(has(1), has(2))
    assert [pair.possible(length) for length in range(4)] == [False, False, True, True]


def test_too_many_states_are_refused():
    def step(state: Hashable, kind: int) -> Hashable:
        assert isinstance(state, int)
        return 2 * state + kind + 1

    with pytest.raises(ValueError, match="more than 4096 states"):
        build(torch.arange(2), 0, step, bool)
