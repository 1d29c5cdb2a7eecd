"""Sentences from files, folders and the scene world; rows of ids; clear errors."""

import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shared.errors import ConfigError, DataError
from shared.tokenizer import EOS, PAD, train_tokenizer
from text import reader
from text.config import DataConfig
from text.data import Corpus, read_corpus, to_rows

DATA = os.environ.get("DIPTYCH_DATA")
real_data = pytest.mark.skipif(DATA is None, reason="DIPTYCH_DATA names no folder of real data")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> None:
    """Keep what `datasets` caches out of the user's folder."""
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def sentences_of(config: DataConfig, held_out: bool = False) -> list[str]:
    return read_corpus(config, held_out).sentences


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_row_is_the_sentence_its_end_and_padding() -> None:
    tokenizer = train_tokenizer(["a b c d"], "word", size=20)
    rows = to_rows(Corpus(["a b", "a b c d", "c a d"]), tokenizer, DataConfig(length=4))
    a, b, c, d = tokenizer.encode("a b c d")
    assert rows.ids.tolist() == [[a, b, EOS, PAD], [c, a, d, EOS]]
    assert rows.dropped == 1
    data, condition = rows.take(torch.tensor([1, 0, 1]))
    assert data.tolist() == [rows.ids[i].tolist() for i in (1, 0, 1)]
    assert condition is None


def test_sentences_that_are_all_too_long_are_refused_with_the_length_to_set() -> None:
    tokenizer = train_tokenizer(["a b c d"], "word", size=20)
    with pytest.raises(ConfigError, match="none of 2 sentences fits, the shortest has 4"):
        to_rows(Corpus(["a b c", "a b c d"]), tokenizer, DataConfig(length=3))


def test_a_folder_is_read_by_split(tmp_path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [{"said": "a  b\n"}, {"said": "c"}, {"said": ""}])
    write_jsonl(tmp_path / "validation.jsonl", [{"said": "d"}])
    config = DataConfig(name=str(tmp_path), column="said")
    assert sentences_of(config) == ["a b", "c"]
    assert sentences_of(config, held_out=True) == ["d"]
    with pytest.raises(DataError, match=r"no split 'test'.*train, validation"):
        sentences_of(DataConfig(name=str(tmp_path), column="said", split="test"))


def test_a_single_file_holds_out_every_twentieth_sentence(tmp_path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"line {i}\n" for i in range(45)))
    kept, held_out = (sentences_of(DataConfig(name=str(path)), h) for h in (False, True))
    assert held_out == ["line 0", "line 20", "line 40"]
    assert sorted(kept + held_out) == sorted(f"line {i}" for i in range(45))
    assert len(sentences_of(DataConfig(name=str(path), limit=7))) == 7


def test_a_wrong_column_lists_the_columns(tmp_path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"said": "a", "who": 3}])
    with pytest.raises(DataError, match=r"'text'.* has said, who"):
        sentences_of(DataConfig(name=str(tmp_path / "a.jsonl")))
    with pytest.raises(DataError, match=r"expected strings, got int \(3\)"):
        sentences_of(DataConfig(name=str(tmp_path / "a.jsonl"), column="who"), held_out=True)


def test_what_cannot_be_read_is_a_data_error(tmp_path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"broken.parquet.*cannot be read"):
        sentences_of(DataConfig(name=str(broken)))
    with pytest.raises(DataError, match="no such file or folder"):
        sentences_of(DataConfig(name=str(tmp_path / "nowhere")))
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    with pytest.raises(DataError, match="no sentences"):
        sentences_of(DataConfig(name=str(empty)))
    with pytest.raises(ConfigError, match="must end in one of"):
        sentences_of(DataConfig(name=__file__))


def test_a_variable_that_is_not_set_is_named(monkeypatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(ConfigError, match=r"\$NOWHERE/e2e.*not set"):
        sentences_of(DataConfig(name="$NOWHERE/e2e"))


def test_the_splits_of_the_scene_world_do_not_overlap() -> None:
    train, held_out = (sentences_of(DataConfig(limit=300), h) for h in (False, True))
    assert len(train) == len(held_out) == 300
    assert not set(train) & set(held_out)


@real_data
def test_e2e_is_read_word_by_word() -> None:
    config = DataConfig(name="$DIPTYCH_DATA/e2e", column="tokens", length=48, min_count=5)
    sentences = sentences_of(config)
    assert len(sentences) == 42_061
    assert sentences[0].startswith("The Vaults pub near Café Adriatic has a 5 star rating .")
    tokenizer = train_tokenizer(sentences, "word", config.vocabulary, config.min_count)
    assert len(tokenizer) == 1_171
    rows = to_rows(Corpus(sentences), tokenizer, config)
    assert rows.dropped == 100
    assert tokenizer.decode(rows.ids[0].tolist()) == sentences[0]
    with pytest.raises(DataError, match="has mr, text, tokens, diffusion_lm"):
        sentences_of(DataConfig(name="$DIPTYCH_DATA/e2e", column="sentence"))


def test_a_source_column_goes_with_its_sentence(tmp_path) -> None:
    rows = [{"said": "a  b", "of": "x"}, {"said": "", "of": "y"}, {"said": "c", "of": "z x  y"}]
    write_jsonl(tmp_path / "train.jsonl", rows)
    config = DataConfig(name=str(tmp_path), column="said", source="of", source_length=2)
    corpus = read_corpus(config)
    assert (corpus.sentences, corpus.sources) == (["a b", "c"], ["x", "z x y"])
    tokenizer = train_tokenizer(corpus.strings, "word", size=20)
    made = to_rows(corpus, tokenizer, config)  # the source of c has three tokens
    assert made.dropped == 1
    data, condition = made.take(torch.tensor([0]))
    assert data[0, :3].tolist() == [*tokenizer.encode("a b"), EOS]
    assert condition is not None
    assert condition.tolist() == [[*tokenizer.encode("x"), PAD]]
    with pytest.raises(ConfigError, match=r"source_length = 2: .* the shortest has 3 tokens"):
        to_rows(Corpus(["c"], ["z x y"]), tokenizer, config)
    with pytest.raises(DataError, match=r"data.source = 'off': .* has said, of"):
        read_corpus(DataConfig(name=str(tmp_path), column="said", source="off"))


def test_in_the_scene_world_the_source_is_the_scene_that_is_told() -> None:
    corpus = read_corpus(DataConfig(source="scene", limit=40))
    assert corpus.sentences == read_corpus(DataConfig(limit=40)).sentences
    assert corpus.sources is not None
    for sentence, source in zip(corpus.sentences, corpus.sources, strict=True):
        reading = reader.analyse(sentence)
        assert reading is not None
        facts = reading.facts
        manner, *things = source.split(" , ")
        assert manner == f"{facts.tone} {facts.audience}"
        assert len(things) == len(facts.things)
        said = [{value for value in part if value} for part in facts.things]
        assert any(
            all(values <= thing_values(thing) for values, thing in zip(said, order, strict=True))
            for order in itertools.permutations(things)
        )
    with pytest.raises(ValueError, match="set 'scene'"):
        DataConfig(source="mr")


def thing_values(thing: str) -> set[str]:
    size, colour, texture, shape, *place = thing.split()
    return {size, colour, texture, shape, " ".join(place)}


def test_splits_of_scenes_are_those_that_are_asked_for():
    config = DataConfig(limit=40, held_out="test")
    train, validation = (sentences_of(replace(config, split=s)) for s in ("train", "validation"))
    held_out = sentences_of(config, held_out=True)
    assert {*held_out}.isdisjoint([*train, *validation])
    assert {*train}.isdisjoint(validation)
    assert sentences_of(replace(config, held_out="train"), held_out=True) == train
