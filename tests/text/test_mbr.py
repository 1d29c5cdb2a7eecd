"""Minimum Bayes risk: the choice, what copies weigh, and candidates that depend on their seed."""

import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from sacrebleu import sentence_bleu

import text
from shared.drawing import FIT_SEED
from shared.errors import ConfigError
from shared.requests import SampleRequest
from shared.seeds import STRIDE, candidate_seeds
from tests.test_command import assert_refused, diptych
from text.mbr import Candidate, rank
from text.panel import PANEL
from text.pipeline import Output

CAT = "the cat sat on the mat"
DRAWS = ["the cat sat on a mat", CAT, "dogs bark at night", "the cat is on the mat", "a cat sat"]
GIVEN = "a red [MASK] [MASK] of the [MASK]*"


@pytest.fixture(scope="module")
def run(make_run) -> Path:
    return make_run("codec.kind=embedding")


@pytest.fixture(scope="module")
def pipe(run: Path) -> text.Pipeline:
    return text.Pipeline.from_pretrained(run)


def by_hand(draws: list[str], i: int) -> float:
    """Mean BLEU of draw i against every other draw, one at a time."""
    scores = [sentence_bleu(draws[i], [other]).score for j, other in enumerate(draws) if j != i]
    return sum(scores) / len(scores)


def test_the_choice_is_what_the_others_agree_with_most() -> None:
    ranked = rank(DRAWS, range(5))
    assert ranked[0].text == CAT
    assert ranked[-1].text == "dogs bark at night"
    for candidate in ranked:
        i = DRAWS.index(candidate.text)
        assert candidate.score == pytest.approx(by_hand(DRAWS, i))
        assert (candidate.count, candidate.seed) == (1, i)
    utilities = [candidate.score or 0.0 for candidate in ranked]
    assert utilities == sorted(utilities, reverse=True)


def test_copies_weigh_as_often_as_they_were_drawn_and_are_ranked_once() -> None:
    alike = ["one two three four five", "one two three four six", "one two three four seven"]
    copies = ["north south east west up"] * 3
    assert rank([*alike, copies[0]], range(4))[0].text in alike
    draws = [alike[0], copies[0], alike[1], copies[0], copies[0], alike[2]]
    ranked = rank(draws, [60, 50, 40, 30, 20, 10])
    assert (ranked[0].text, ranked[0].count, ranked[0].seed) == (copies[0], 3, 20)
    assert ranked[0].score == pytest.approx(2 * 100 / 5)  # two of the five others
    assert len(ranked) == 4
    for candidate in ranked:
        assert candidate.score == pytest.approx(by_hand(draws, draws.index(candidate.text)))


def test_the_order_of_the_draws_does_not_matter() -> None:
    draws = [*DRAWS, CAT, "x y", "y x", "", ""]
    seeds = range(len(draws))
    expected = rank(draws, seeds)
    pairs = list(zip(draws, seeds, strict=True))
    for trial in range(8):
        random.Random(trial).shuffle(pairs)
        assert rank([draw for draw, _ in pairs], [seed for _, seed in pairs]) == expected


def test_equals_are_decided_by_their_number_and_then_by_the_alphabet() -> None:
    for draws in itertools.permutations(["b", "a", "c", "c", "c"]):
        ranked = rank(draws, range(5), utility=lambda hypothesis, reference: 1.0)
        assert [candidate.text for candidate in ranked] == ["c", "a", "b"]


def test_the_utility_sees_the_candidate_first_and_another_draw_second() -> None:
    table = {("a", "b"): 3.0, ("b", "a"): 5.0}
    ranked = rank(["a", "b"], [7, 8], utility=lambda *pair: table[pair])
    assert ranked == [Candidate("b", 5.0, 1, 8), Candidate("a", 3.0, 1, 7)]


def test_one_draw_has_no_others_to_agree_with() -> None:
    assert rank(["a b"], [7]) == [Candidate("a b", None, 1, 7)]


def test_seeds_of_candidates_are_those_of_no_other_sample() -> None:
    assert candidate_seeds(5, 3) == [5, 5 + 2**41, 5 + 2**42]
    drawn = [own for seed in range(200) for own in candidate_seeds(seed, 50)]
    assert len(set(drawn)) == len(drawn) == 10_000
    assert max(range(200)) < FIT_SEED + 64 < STRIDE


def test_what_is_kept_depends_on_its_seed_alone(pipe: text.Pipeline) -> None:
    def choose(seeds: Sequence[int]) -> Output:
        return pipe(seeds=seeds, num_inference_steps=3, num_candidates=5, n_best=2)

    together = choose(range(100, 130))
    for i in (0, 13, 29):
        alone = choose([100 + i])
        assert alone.texts == [together.texts[i]]
        assert alone.n_best == [together.n_best[i]]


def test_candidates_are_the_sentences_of_their_seeds(pipe: text.Pipeline) -> None:
    found = pipe(seeds=[3, 4], num_inference_steps=3, num_candidates=6, n_best=6)
    for seed, chosen, candidates in zip(found.seeds, found.texts, found.n_best, strict=True):
        seeds = candidate_seeds(seed, 6)
        drawn = pipe(seeds=seeds, num_inference_steps=3).texts
        assert candidates == rank(drawn, seeds)
        assert candidates[0].text == chosen
        assert sum(candidate.count for candidate in candidates) == 6
    assert found.texts != pipe(seeds=[3, 4], num_inference_steps=3).texts


def test_one_candidate_is_the_sentence_itself(pipe: text.Pipeline) -> None:
    plain = pipe(seeds=[3, 4], num_inference_steps=3)
    assert pipe(seeds=[3, 4], num_inference_steps=3, num_candidates=1) == plain
    assert plain.n_best == [
        [Candidate(t, None, 1, s)] for t, s in zip(plain.texts, (3, 4), strict=True)
    ]


def test_all_candidates_share_the_template(pipe: text.Pipeline) -> None:
    found = pipe(seeds=[1, 2, 3], num_inference_steps=3, given=GIVEN, num_candidates=8, n_best=8)
    texts = [candidate.text for best in found.n_best for candidate in best]
    assert len(set(texts)) > 8
    for sentence in texts:
        words = sentence.split()
        assert (words[:2], words[4:6]) == (["a", "red"], ["of", "the"])


def test_the_causal_reference_has_candidates_too(make_run) -> None:
    pipe = text.Pipeline.from_pretrained(make_run("model=causal"))
    found = pipe(seeds=[9], num_candidates=4, n_best=4)
    seeds = candidate_seeds(9, 4)
    assert found.n_best == [rank(pipe(seeds=seeds).texts, seeds)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_candidates": 0}, "mbr = 0: expected 1 candidate"),
        ({"n_best": 2}, "n_best = 2: expected 1 to 1"),
        ({"num_candidates": 4, "n_best": 5}, "n_best = 5: expected 1 to 4"),
        ({"num_candidates": 4, "n_best": 0}, "n_best = 0"),
        ({"num_candidates": 4, "watch": print}, "trajectory, mbr"),
    ],
)
def test_impossible_numbers_of_candidates_are_refused(pipe, arguments, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pipe(**arguments)


def test_sample_writes_the_best_candidates(run: Path, tmp_path: Path) -> None:
    PANEL.sample(run, SampleRequest(n=3, seed=8, steps=3, mbr=4, n_best=2), tmp_path)
    written = json.loads((tmp_path / "samples.json").read_text())
    assert written["settings"]["mbr"] == 4
    assert written["seeds"] == [8, 9, 10]
    assert [best[0]["text"] for best in written["n_best"]] == written["texts"]
    lines = (tmp_path / "n_best.txt").read_text().splitlines()
    best = [candidate for of_one in written["n_best"] for candidate in of_one]
    assert len(lines) == len(best)
    for line, candidate in zip(lines, best, strict=True):
        assert line.endswith(candidate["text"])
        assert f"score {candidate['score']:6.2f}" in line
    PANEL.sample(run, SampleRequest(n=3, steps=3), tmp_path / "plain")
    assert "n_best" not in json.loads((tmp_path / "plain/samples.json").read_text())
    assert not (tmp_path / "plain/n_best.txt").exists()


def test_the_command_refuses_what_cannot_be_with_code_2(run: Path) -> None:
    assert_refused(diptych("sample", run, "--mbr", "0"), 2, "mbr = 0", "1 candidate")
    assert_refused(diptych("sample", run, "--mbr", "2", "--n-best", "3"), 2, "n_best = 3", "1 to 2")
    result = diptych("sample", run, "--mbr", "2", "--trajectory")
    assert_refused(result, 2, "trajectory, mbr")
