"""Candidates of controlled sentences: drawn until one promises what is asked for."""

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
from text.control.automaton import build
from text.control.controls import Control
from text.control.evaluation import SURE, _drawn

ANYTHING = build(torch.zeros(5), None, lambda state, kind: None, lambda state: True)


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
    """What sentences promise; 0 where nothing is said of them."""

    def __init__(self, promises: dict[str, float]) -> None:
        self.promises = promises

    def promise(self, texts: Sequence[str], targets: Sequence[Target]) -> list[float]:
        assert len(texts) == len(targets)
        return [self.promises.get(text, 0.0) for text in texts]


def drawn(promises: dict[str, float], request: ControlRequest) -> tuple[list[str], list[list[int]]]:
    writer: Any = Writer()
    world: Any = Reader(promises)
    rows = [(Target((Control("span", "0-1 NP"),)), ANYTHING)] * 3
    return _drawn(writer, world, rows, request), writer.asked


def test_a_candidate_that_promises_all_is_kept_and_no_more_are_drawn_for_its_row():
    promises = {"7.0": SURE, "8.2": 1.0, "7.1": 1.0, "8.1": SURE - 1e-6}
    texts, asked = drawn(promises, ControlRequest(n=1, seed=7, candidates=3))
    assert texts == ["7.0", "8.2", "9.0"]  # of equals the first
    assert asked == [[7, 8, 9], [8 + STRIDE, 9 + STRIDE], [8 + 2 * STRIDE, 9 + 2 * STRIDE]]


def test_without_one_the_one_that_promises_most_is_kept():
    promises = {"0.0": 0.2, "0.1": 0.6, "1.0": 0.3, "1.2": 0.2, "2.2": 0.1}
    texts, asked = drawn(promises, ControlRequest(n=1, candidates=3))
    assert texts == ["0.1", "1.0", "2.2"]
    assert [len(seeds) for seeds in asked] == [3, 3, 3]


def test_one_candidate_is_not_read():
    texts, asked = drawn({}, ControlRequest(n=1))
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
