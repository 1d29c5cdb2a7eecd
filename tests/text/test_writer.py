"""The writer: what a wish asks of the model, different sentences, variations, and refusals."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from benchmarks import told as told_by
from shared.errors import ConfigError, DataError
from shared.learner import DiffusionLearner
from shared.objective import diffusion_loss, sample_keys, weight
from shared.requests import SampleRequest, WriteRequest
from shared.sampling import Sampling
from shared.seeds import candidate_seeds
from tests.test_command import assert_refused, diptych, told
from text.ask import choice
from text.control.lexicon import scene_phrases
from text.mbr import Candidate
from text.panel import PANEL
from text.pipeline import Pipeline
from text.sureness import own_losses, surest_each
from text.writer import FILE, Own, _different, write
from text.writers.scene import Wish, success
from text.writers.wanted import Drawn, dealt

TOLD = (
    "data.source=scene", "data.source_length=12", "data.partial_sources=0.5",
    "data.only={count: 1}", "net.cross_attention=true", "net.source_depth=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(make_run) -> Path:
    return make_run(*TOLD)


@pytest.fixture(scope="module")
def pipe(run: Path) -> Pipeline:
    return Pipeline.from_pretrained(run)


@pytest.mark.parametrize(
    ("wish", "source"),
    [
        (Wish("red star", "formal", "child"), "formal child , red star"),
        (Wish("star huge scarlet picture", None, "adult"), "adult , large red star"),
        (Wish("", "cheerful", None), "cheerful"),
        (Wish("red moon blue", None, None), "red moon , blue"),
        (Wish("picture", None, None), ""),
    ],
)
def test_a_wish_is_what_is_known_of_the_scene(wish: Wish, source: str):
    assert wish.source == source


def test_words_that_may_say_two_things_are_no_fact():
    assert "plain" in scene_phrases("texture:solid")
    assert Wish("spotted", None, None).source == "dots"
    assert Wish("the", "plain", None).source == "plain"
    with pytest.raises(ConfigError, match="tone = 'rude': expected one of plain, cheerful, formal"):
        Wish("", "rude", None)
    with pytest.raises(ConfigError, match="say a message, a tone or an audience"):
        Wish("", None, None)


def test_sentences_differ_and_hold_every_word(run: Path, tmp_path: Path):
    asked = WriteRequest(n=5, steps=4, message="red star", tone="formal", audience="child")
    result = PANEL.write(run, asked, tmp_path)
    written = json.loads((tmp_path / FILE).read_text())
    texts = written["texts"]
    assert len(texts) == len(set(texts)) == 5
    assert all({"red", "star"} <= set(text.split()) for text in texts)
    assert result["success"]["words"] == 1.0
    assert [result[f"sentence {i}"] for i in range(5)] == texts
    assert (tmp_path / "written.txt").read_text().splitlines() == texts
    assert written["source"] == "formal child , red star"
    assert written["settings"]["control_scale"] == 1.0


def test_success_is_read_in_the_sentences():
    wish = Wish("red star", "plain", "adult")
    said = [
        "there is a red star at the top .",  # a plain adult's
        "there is a red moon at the top .",
        "red star .",
        "it should be noted that a red star appears at the top .",
    ]
    found = success(said, wish)
    assert found["words"] == 3 / 4
    assert found["grammatical"] == 3 / 4
    assert found["tone"] == 2 / 4
    assert found["facts"] == 2 / 4
    assert found["all"] == 1 / 4
    assert success([], wish) == {}


@pytest.fixture(scope="module")
def copies(make_run) -> Pipeline:
    """A model of bits that adds to the exact evidence: without noise it says what it sees."""
    return Pipeline.from_pretrained(make_run(*TOLD, "codec.kind=bits", "diffusion.evidence=true"))


def test_a_variation_is_near_its_sentence_the_nearer_the_less_noise(copies: Pipeline):
    texts = ["a star", "there is a small star at the top left .", "star"]
    before = {"message": "star", "tone": "plain", "audience": "adult", "texts": texts}
    words = texts[1].split()

    def kept(strength: float) -> float:
        asked = WriteRequest(n=6, steps=8, seed=50, more_like=1, strength=strength)
        found = write(copies, asked, before)
        assert found["more_like"] == texts[1]
        assert (found["message"], found["tone"], found["audience"]) == ("star", "plain", "adult")
        assert texts[1] not in found["texts"]
        assert all("star" in text.split() for text in found["texts"])
        same = [
            sum(a == b for a, b in zip(words, text.split(), strict=False)) / len(words)
            for text in found["texts"]
        ]
        return sum(same) / len(same)

    assert kept(0.5) > kept(1.0) + 0.25


def test_a_little_noise_gives_the_sentence_back_and_nothing_new(copies: Pipeline):
    text = "there is a red star at the top ."
    before = {"message": "star", "tone": None, "audience": None, "texts": [text]}
    found = write(copies, WriteRequest(n=2, steps=2, more_like=0, strength=0.05), before)
    assert found["texts"] == []
    assert found["success"] == {}
    assert found["drawn"] == 16


def test_the_models_loss_of_a_sentence_is_its_mean_over_levels_with_the_noise_of_all(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    """Written out for two draws: the key of a draw and its level are every sentence's, so that a
    sentence has the loss it has alone."""
    learner = pipe.learner
    assert isinstance(learner, DiffusionLearner)
    texts = ["there is a red star at the top .", "star star the the"]
    rows = pipe.rows(texts)
    condition = pipe.prompted("formal child , red star", 2)[0]
    assert condition is not None
    by_hand, weighed = torch.zeros(2), torch.zeros(2)
    for draw, t in ((0, 0.25), (1, 0.75)):
        keys = sample_keys(draw, torch.zeros(2, dtype=torch.long))
        given = rows, condition, torch.full((2,), t), keys, learner.schedule
        plain, level = diffusion_loss(learner.denoiser, learner.codec, *given, "x0")
        by_hand += plain.detach() / 2
        weighed += plain.detach() * weight("v", level, learner.data_std) / 2
    found = own_losses(learner, rows, condition, draws=2)
    assert_close(found, by_hand)
    assert_close(own_losses(learner, rows[1:], condition[1:], draws=2), by_hand[1:])
    with monkeypatch.context() as patched:  # as diffusion.weigh_cross_entropy has it
        patched.setattr(learner, "weighs", True)
        patched.setattr(learner, "weighting", "v")
        assert_close(own_losses(learner, rows, condition, draws=2), weighed)
    other = own_losses(learner, rows, torch.zeros_like(condition), draws=2)
    assert not torch.allclose(other, found)


def test_a_sentence_is_the_one_of_its_candidates_that_the_model_is_surest_of(pipe: Pipeline):
    source = "formal child , red star"
    found = pipe(2, 3, prompt=source, seeds=[3, 4], num_candidates=4, rank="sureness", n_best=4)
    assert found.texts == [best[0].text for best in found.n_best]
    drawn = [own for seed in (3, 4) for own in candidate_seeds(seed, 4)]
    each = pipe(8, 3, prompt=source, seeds=drawn).texts
    assert isinstance(pipe.learner, DiffusionLearner)
    for i, best in enumerate(found.n_best):
        assert {one.text for one in best} == set(each[4 * i : 4 * i + 4])
        rows = pipe.rows([one.text for one in best])
        losses = own_losses(pipe.learner, rows, pipe.prompted(source, len(best))[0])
        assert losses.tolist() == sorted(losses.tolist())
        assert_close(torch.tensor([-(one.score or 0.0) for one in best]), losses)
    with pytest.raises(ConfigError, match="two ways to choose"):
        choice(SampleRequest(mbr=2, surest=2))
    assert surest_each(["b", "a", "b", "c"], [2.0, 1.0, 2.0, 3.0], [5, 6, 7, 8], 4) == [
        [Candidate("a", -1.0, 1, 6), Candidate("b", -2.0, 2, 5), Candidate("c", -3.0, 1, 8)]
    ]


def test_of_several_candidates_the_model_keeps_those_it_is_surest_of(pipe: Pipeline):
    asked = WriteRequest(n=2, steps=3, message="red star", tone="formal", surest=4)
    every = write(pipe, replace(asked, n=8, surest=1))
    kept = write(pipe, asked)
    assert kept["drawn"] == every["drawn"]
    rows = pipe.rows(every["texts"])
    assert isinstance(pipe.learner, DiffusionLearner)
    losses = own_losses(pipe.learner, rows, pipe.prompted(every["source"], 8)[0])
    best = losses.argsort()[:2].tolist()
    assert kept["texts"] == [every["texts"][i] for i in best]
    assert kept["seeds"] == [every["seeds"][i] for i in best]
    assert kept["settings"]["surest"] == 4


def test_what_cannot_be_written_is_refused(run: Path, make_run, tmp_path: Path):
    with pytest.raises(DataError, match="no sentences to vary"):
        PANEL.write(run, WriteRequest(more_like=0), tmp_path)
    with pytest.raises(ConfigError, match="does not know 'zebra'"):
        PANEL.write(run, WriteRequest(message="zebra"), tmp_path)
    with pytest.raises(ConfigError, match="train text/scene_told"):
        PANEL.write(make_run(), WriteRequest(message="star"), tmp_path)
    with pytest.raises(ConfigError, match=r"strength = 0: expected a number in \(0, 1\]"):
        WriteRequest(message="star", strength=0)
    with pytest.raises(ConfigError, match="strength: of variations; give more_like"):
        PANEL.write(run, WriteRequest(message="star", strength=0.9), tmp_path)
    with pytest.raises(ConfigError, match="surest = 0: expected 1 or more"):
        WriteRequest(message="star", surest=0)
    causal = make_run("model=causal", *TOLD[:4])
    with pytest.raises(ConfigError, match="surest: ranks what diffusion wrote"):
        PANEL.write(causal, WriteRequest(tone="formal", surest=2), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "left",
    [
        b"[]",
        b"{}",
        b'{"texts": 3}',
        b'{"texts": ["star", 3]}',
        b'{"texts": ["star"], "tone": 3}',
        b'{"texts": ["star"], "use_case": "paragraph"}',
        b'{"texts": ["star"], "use_case": "paragraph", "sentences": ["star"]}',
        b"{",
        b"caf\xe9",
    ],
)
def test_what_is_not_what_was_written_last_is_named(left: bytes, run: Path, tmp_path: Path):
    (tmp_path / FILE).write_bytes(left)
    said = diptych("write", run, "--more-like", "0", "--tone", "formal", "--out", tmp_path)
    assert_refused(said, 3, str(tmp_path / FILE), "write new ones")


def test_a_paragraph_is_sentences_of_the_parts_of_its_message(run: Path, tmp_path: Path):
    words = ["--message", "red star, blue moon", "--tone", "formal", "-n", "2", "--steps", "3"]
    out = ["--out", tmp_path, "--json"]
    found = told(diptych("write", run, *words, "--use-case", "paragraph", *out))
    assert found["success"]["words"] == 1.0
    written = json.loads((tmp_path / FILE).read_text())
    assert [found["paragraph 0"], found["paragraph 1"]] == written["texts"]
    for text, (first, second) in zip(written["texts"], written["sentences"], strict=True):
        assert text == f"{first} {second}"
        assert {"red", "star"} <= set(first.split())
        assert {"blue", "moon"} <= set(second.split())
    told(diptych("write", run, "--more-like", "1", "-n", "1", "--steps", "3", *out))
    varied = json.loads((tmp_path / FILE).read_text())
    assert varied["more_like"] == written["texts"][1]
    assert [len(row) for row in varied["sentences"]] == [2]
    refused = diptych("write", run, "--more-like", "0", "--use-case", "sentence", *out)
    assert_refused(refused, 2, "use_case = sentence: what was written last is no sentence")
    refused = diptych("write", run, "--more-like", "0", "--message", "star", *out)
    assert_refused(refused, 2, "has 2 sentences, and what is asked for now 3")
    refused = diptych("write", run, "--tone", "plain", "--use-case", "letter", *out)
    assert_refused(refused, 2, "use_case = 'letter': expected one of sentence, paragraph")


def test_a_paragraph_holds_what_all_its_sentences_hold(run: Path, pipe: Pipeline):
    asked = WriteRequest(n=3, steps=3, message="star", use_case="paragraph")
    found = write(pipe, asked)
    assert all(len(set(row)) == len(row) == 3 for row in found["sentences"])
    for row, said in zip(found["sentences"], found["told"], strict=True):
        each = [success([text], Wish("star", None, None)) for text in row]
        assert said == {name: min(one[name] for one in each) for name in said}
    assert found["success"]["all"] == sum(one["all"] for one in found["told"]) / 3


class Given:
    """A writer of given sentences, again and again, with given scores."""

    def __init__(self, *drawn: Drawn) -> None:
        self.drawn, self.how = drawn, Sampling()

    def parts(self) -> list["Given"]:
        return [self]

    def draw(self, seeds: Sequence[int], near: str | None) -> list[Drawn]:
        return [self.drawn[seed % len(self.drawn)] for seed in seeds]

    def told(self, text: str) -> dict[str, float]:
        return {"all": 1.0}

    def about(self) -> dict[str, Any]:
        return {}


def test_of_different_sentences_the_best_are_kept_and_equals_as_they_were_drawn():
    given = Given(
        Drawn("a", (1, 0.5)), Drawn("b", (2, 0.1)), Drawn("a", (9, 9)), Drawn("c", (1, 0.7)),
        Drawn("d", (1, 0.5)),
    )  # fmt: skip
    found, drawn = _different(given, WriteRequest(n=2, surest=2), 0, None, set())
    assert found == [Own("b", 1), Own("c", 3)]
    assert drawn == 4 + 1
    found, _ = _different(given, WriteRequest(n=4, surest=1), 0, None, {"b"})
    assert found == [Own("c", 3), Own("a", 0), Own("d", 4)]


@pytest.mark.parametrize(
    ("count", "least", "sizes"),
    [(0, 1, [0, 0, 0]), (1, 1, [1, 1, 1]), (2, 1, [1, 1]), (5, 1, [1, 2, 2]), (5, 2, [2, 3]),
     (3, 2, [3, 3, 3])],
)  # fmt: skip
def test_parts_are_dealt_out_in_order(count: int, least: int, sizes: list[int]):
    parts = [f"part {i}" for i in range(count)]
    found = dealt(parts, least)
    assert [len(own) for own in found] == sizes
    assert parts in (found[0], [*itertools.chain(*found)])


def test_the_command_writes_and_varies(run: Path, tmp_path: Path):
    words = ["--message", "star", "--audience", "child", "-n", "2", "--steps", "3"]
    out = ["--out", tmp_path, "--json"]
    assert told(diptych("write", run, *words, *out))["success"]["words"] == 1.0
    told(diptych("write", run, "--more-like", "1", "-n", "1", "--steps", "3", *out))
    assert_refused(diptych("write", run, "--more-like", "7", *out), 2, "from 0 to 0")


def test_the_benchmark_measures_sources_of_every_kind_and_the_writer(run: Path, tmp_path: Path):
    file = tmp_path / "told.json"
    told_by.run(
        run,
        n=3,
        guidance=(1.0, 2.0),
        count=2,
        each=2,
        scales=((1.0, 1.0),),
        strengths=(0.9,),
        surest=(2,),
        steps=2,
        json_file=file,
    )
    found = json.loads(file.read_text())
    assert [(row["source"], row["guidance"]) for row in found["told"]] == [
        (kind, scale) for kind in ("whole", "in part", "manner alone") for scale in (1.0, 2.0)
    ]
    kinds = ["written", "best of 2", "varied, strength 0.9"]
    assert [row["what"] for row in found["written"]] == kinds
    assert all(row["words"] == 1.0 for row in found["written"])
    assert found["written"][0]["sentences"] == 4
    for wish in told_by.wishes(20, {"count": "1"}):
        assert len(wish.message.split()) == 2
        assert wish.source.startswith(f"{wish.tone} {wish.audience} , ")
