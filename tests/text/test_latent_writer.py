"""The writer in latents of sentences: operators, words, edits, and refusals."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from shared.errors import ConfigError
from shared.learner import DiffusionLearner
from shared.requests import WriteRequest
from shared.sampling import Start
from shared.seeds import candidate_seeds
from tests.test_command import assert_refused, diptych, told
from text.operators.choice import scores
from text.operators.sampler import guided_draw
from text.pipeline import Pipeline
from text.writer import FILE, write
from text.writers.latents import LatentWriter, latent_writer
from text.writers.wanted import Wanted

HOW = {"steps": 5, "solver": "dpmpp_2m"}


@pytest.fixture(scope="module")
def pipe(writer: Path) -> Pipeline:
    return Pipeline.from_pretrained(writer)


@pytest.fixture(scope="module")
def reviews(writer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with one operator, which is named sentiment."""
    run = tmp_path_factory.mktemp("reviews") / "run"
    shutil.copytree(writer, run)
    (run / "operators" / "tone").rename(run / "operators" / "sentiment")
    shutil.rmtree(run / "operators" / "audience")
    return run


def made(pipe: Pipeline, message: str = "", tone: str | None = None, **how) -> LatentWriter:
    return latent_writer(pipe, WriteRequest(**HOW, **how), Wanted(message, tone, None))


def test_sentences_begin_at_the_message_and_go_towards_the_operators(pipe: Pipeline):
    writer = made(pipe, "red star", "formal", strength=0.7, control_scale=2.0)
    ask = writer.ask
    assert [(one.written, one.weight) for one in ask.demands] == [("tone=formal", 2.0)]
    start = Start(ask.encoded(["red star"], "message").expand(4, -1, -1), 0.7)
    x0 = guided_draw(ask.learner, range(4), writer.how, ask.pull(), start)
    ids = ask.codec.words(x0, range(4))
    texts = [pipe.tokenizer.decode(row) for row in ids.tolist()]
    assert [one.text for one in writer.draw(range(4), None)] == texts
    near = "look at a blue moon ."
    begun = writer._begin(2, near)
    assert begun is not None
    assert_close(begun, ask.encoded([near] * 2, "message"))
    assert made(pipe, tone="formal")._begin(2, None) is None


def test_those_with_most_words_come_first(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch):
    texts = ["a red moon .", "star .", "see a red star .", "a moon under red ."]
    writer = made(pipe, "a red star", "plain", surest=4)
    monkeypatch.setattr(writer.ask.codec, "words", lambda x0, seeds: pipe.rows(texts))
    drawn = writer.draw(range(4), None)
    assert [one.score[0] for one in drawn] == [2, 1, 3, 2]
    said = writer.told(texts[0])
    assert [said[f"says {word}"] for word in ("a", "red", "star")] == [1, 1, 0]
    assert said["all"] == 0


def test_words_with_signs_are_found(pipe: Pipeline):
    writer = replace(made(pipe, "star"), message="u.s. don't n't")
    for text, found in (
        ("i don't, star", {"says don't": 1, "says n't": 0, "says u.s.": 0}),
        ("do n't stop", {"says don't": 0, "says n't": 1, "says u.s.": 0}),
        ("t don ' the u.s .", {"says don't": 0, "says n't": 0, "says u.s.": 1}),
    ):
        assert writer.told(text) == {**found, "all": 0}


def test_the_surest_are_those_of_the_operators_scores(pipe: Pipeline):
    writer = made(pipe, tone="formal", surest=2)
    drawn = writer.draw(range(5), None)
    ask = writer.ask
    x0 = guided_draw(ask.learner, range(5), writer.how, ask.pull())
    found = scores(ask.codec, ask.pull(), x0, ask.codec.words(x0, range(5)))
    assert_close(torch.tensor([one.score[1] for one in drawn]), found)


def test_what_holds_is_what_operators_tell_of_the_sentence(pipe: Pipeline):
    writer = made(pipe, "star moon", "formal")
    tone = writer.ask.operators["tone"]
    for text in ("look at a star .", "it should be noted that there is a star ."):
        (value,) = writer.ask.values(writer.ask.encoded([text], "message"))
        formal = float(value == {"tone": "formal"})
        assert value["tone"] in tone.classes
        found = writer.told(text)
        assert found == {"tone=formal": formal, "says star": 1.0, "says moon": 0.0, "all": 0.0}


def test_a_sentence_is_edited(pipe: Pipeline):
    sentence = "look at a red star ."
    writer = made(pipe, sentence, "formal", surest=2)
    assert writer.edits
    assert writer.words == []
    assert writer.told(sentence)["words_kept"] == 1.0
    assert writer.told("look at a moon .")["words_kept"] == 4 / 6
    ask, begin = writer.ask, writer.ask.encoded([sentence] * 3, "message")
    x0 = guided_draw(ask.learner, range(3), writer.how, ask.pull(), Start(begin, 0.6))
    found = scores(ask.codec, ask.pull(), x0, ask.codec.words(x0, range(3)), begin)
    drawn = writer.draw(range(3), None)
    assert_close(torch.tensor([one.score[1] for one in drawn]), found)


def test_parts_of_a_paragraph_are_between_commas_or_sentences(pipe: Pipeline):
    def parts(message: str) -> list[str]:
        return [part.message for part in made(pipe, message).parts()]

    assert parts("red star, blue moon") == ["red star", "blue moon"]
    assert parts("look , a star ! see a moon .") == ["look , a star !", "see a moon ."]
    assert parts("star") == ["star"] * 3
    assert [part.message for part in made(pipe, tone="formal").parts()] == [""] * 3


def test_a_paragraph_has_a_sentence_of_each_part(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch):
    def words(x0: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        return pipe.rows(["see a red star ." if one < 9 else "a blue moon ." for one in seeds])

    assert isinstance(pipe.learner, DiffusionLearner)
    monkeypatch.setattr(pipe.learner.codec, "words", words)
    asked = WriteRequest(n=1, seed=3, message="red star, blue star", use_case="paragraph", **HOW)
    found = write(pipe, asked)
    assert found["texts"] == ["see a red star . a blue moon ."]
    assert found["seeds"] == [candidate_seeds(3, 2)]
    # star was asked of both
    assert found["success"] == {"says red": 1, "says star": 0, "says blue": 1, "all": 0}


def test_operators_are_found_by_what_they_are_called(reviews: Path, pipe: Pipeline):
    theirs = Pipeline.from_pretrained(reviews)
    found = write(theirs, WriteRequest(n=2, tone="plain", **HOW))
    assert found["operators"] == ["sentiment=plain"]
    assert set(found["success"]) == {"sentiment=plain", "all"}
    with pytest.raises(ConfigError, match=r"audience: is the operator audience, .* has count"):
        write(theirs, WriteRequest(audience="child", **HOW))
    with pytest.raises(ConfigError, match=r"tone = 'rude': expected one of cheerful, formal, pl"):
        write(pipe, WriteRequest(tone="rude", **HOW))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"guidance": 2.0, "tone": "plain"}, "guidance, clamp: of models of words"),
        ({"clamp": True, "tone": "plain"}, "guidance, clamp: of models of words"),
        ({"control_scale": 0.0, "tone": "plain"}, "control_scale = 0.0: is the weight"),
        ({"strength": 0.5, "tone": "plain"}, "strength: of a message and of variations"),
        ({"message": "red zebra"}, "message = 'red zebra': the model does not know 'zebra'"),
        ({"message": "a zebra ."}, "message = 'a zebra .': the model does not know 'zebra'"),
        ({}, "say a message, a tone or an audience"),
    ],
)
def test_what_latents_cannot_do_is_refused(how, message: str, pipe: Pipeline):
    with pytest.raises(ConfigError, match=message):
        write(pipe, WriteRequest(n=1, **HOW, **how))


def test_the_command_writes_edits_and_varies(writer: Path, tmp_path: Path):
    how = ["-n", "2", "--steps", "4", "--out", tmp_path, "--json"]
    words = ["--message", "star", "--tone", "formal", "--audience", "child"]
    found = told(diptych("write", writer, *words, "--surest", "3", *how))
    assert set(found["success"]) == {"tone=formal", "audience=child", "says star", "all"}
    before = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    told(diptych("write", writer, "--more-like", "0", "--strength", "0.9", *how))
    after = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    assert after["more_like"] == before["texts"][0]
    assert after["operators"] == ["tone=formal", "audience=child"]
    edit = ["--message", "look at a star .", "--tone", "formal", "--strength", "0.5"]
    assert "words_kept" in told(diptych("write", writer, *edit, *how))["success"]
    assert_refused(diptych("write", writer, "--tone", "rude", *how), 2, "tone = 'rude'", "formal")
