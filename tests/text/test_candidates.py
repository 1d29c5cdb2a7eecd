"""Candidates of controlled sentences: drawn until what guides them reads what is asked for."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from shared.errors import ConfigError
from shared.requests import ControlRequest
from shared.seeds import STRIDE
from text.ask import Ask
from text.control import Target
from text.control.analysis import Analysis
from text.control.automaton import build
from text.control.controls import Control
from text.control.evaluation import _drawn

ANYTHING = build(torch.zeros(5), None, lambda state, kind: None, lambda state: True)
SPAN, FACT = Control("span", "0-1 NP"), Control("says", "food: tea")


class Writer:
    """Sentences are their seeds."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def prompted(self, prompt: str | None, n: int) -> tuple[None, tuple[int, ...]]:
        return None, ()

    def write(self, seeds: Sequence[int], request: ControlRequest, ask: Ask, progress: bool) -> Any:
        assert ask.automata is not None
        assert len(ask.automata) == len(seeds)
        self.asked.append([*seeds])

        return SimpleNamespace(texts=[f"{seed % STRIDE}.{seed // STRIDE}" for seed in seeds])


class Reader:
    """What is foreseen of a sentence: whether it has the phrase, and says the fact."""

    def __init__(self, **foreseen: str) -> None:
        self.foreseen = {name.replace("_", ".")[1:]: said for name, said in foreseen.items()}

    def foresee(self, texts: Sequence[str], targets: Sequence[Target]) -> list[Analysis | None]:
        found: list[Analysis | None] = []
        for text in texts:
            said = self.foreseen.get(text, "")
            spans = frozenset([(0, 1, "NP")]) if "span" in said else frozenset()
            found.append(Analysis(lambda fact, said=said: "fact" in said, None, spans))
        return found


def drawn(reader: Reader, request: ControlRequest, *controls: Control) -> tuple[Any, Any]:
    writer: Any = Writer()
    rows = [(Target(controls), ANYTHING)] * 3
    return _drawn(writer, reader, rows, request), writer.asked  # pyright: ignore[reportArgumentType]


def test_a_candidate_that_satisfies_all_is_kept_and_no_more_are_drawn_for_its_row():
    reader = Reader(s7_0="span", s8_2="span", s7_1="span", s8_1="")
    texts, asked = drawn(reader, ControlRequest(n=1, seed=7, candidates=3), SPAN)
    assert texts == ["7.0", "8.2", "9.0"]  # of equals the first
    assert asked == [[7, 8, 9], [8 + STRIDE, 9 + STRIDE], [8 + 2 * STRIDE, 9 + 2 * STRIDE]]


def test_without_one_that_satisfies_all_the_one_that_does_most_is_kept():
    reader = Reader(s0_1="span", s1_0="fact", s1_1="span fact", s2_0="span", s2_1="fact")
    texts, asked = drawn(reader, ControlRequest(n=1, candidates=3), SPAN, FACT)
    assert texts == ["0.1", "1.1", "2.0"]
    assert [len(seeds) for seeds in asked] == [3, 3, 2]


def test_one_candidate_is_not_read():
    texts, asked = drawn(Reader(s0_0="span"), ControlRequest(n=1), SPAN)
    assert texts == ["0.0", "1.0", "2.0"]
    assert asked == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"candidates": 0}, "candidates = 0: expected 1 or more"),
        ({"candidates": 2, "mbr": 2}, "candidates, mbr: one keeps what satisfies most"),
    ],
)
def test_impossible_candidates_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        ControlRequest(**settings)
