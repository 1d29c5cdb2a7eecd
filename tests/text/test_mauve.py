"""MAUVE against its definition, and the features that it is taken in."""

import math
from collections.abc import Sequence

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor
from torch.testing import assert_close

from shared.errors import CheckpointError, ConfigError
from shared.requests import EvaluateRequest
from shared.tokenizer import BOS, train_tokenizer
from tests.test_command import diptych
from tests.text.conftest import text_config
from text.baseline import CausalLM
from text.features import FolderFeatures, JudgeFeatures, build_features
from text.judge import Judge
from text.metrics import mauve
from text.panel import PANEL, build_learner


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path_factory.mktemp("judges")))


def by_definition(p: list[float], q: list[float], c: float = 5.0) -> float:
    """AUC of {(exp(-c KL(Q|R)), exp(-c KL(P|R))): R = l P + (1 - l) Q}, 0 < l < 1, with the
    frontier drawn level to x = 0 (Pillutla et al. 2021): the integral of y dx, in l."""

    def kl(a: list[float], r: list[float]) -> float:
        return sum(x * math.log(x / z) if z else math.inf for x, z in zip(a, r, strict=True) if x)

    def r(share: float) -> list[float]:
        return [share * a + (1 - share) * b for a, b in zip(p, q, strict=True)]

    def slope(share: float) -> float:  # of x = exp(-c KL(Q|R)) in l
        by = sum(b * (b - a) / z for a, b, z in zip(p, q, r(share), strict=True) if b)
        return -c * math.exp(-c * kl(q, r(share))) * by

    inside = quad(lambda share: -math.exp(-c * kl(p, r(share))) * slope(share), 0, 1)[0]
    return math.exp(-c * kl(q, p)) + inside


@pytest.mark.parametrize(
    ("p", "q"),
    [
        ([0.2, 0.3, 0.5], [0.25, 0.45, 0.3]),
        ([0.5, 0.5, 0.0], [0.25, 0.25, 0.5]),
        ([0.0, 0.4, 0.6], [0.7, 0.3, 0.0]),
    ],
)
def test_the_area_is_that_of_the_definition(p: list[float], q: list[float]) -> None:
    found = mauve.frontier_area(torch.tensor(p), torch.tensor(q))
    assert found == pytest.approx(by_definition(p, q), abs=1e-5)
    assert mauve.frontier_area(torch.tensor(q), torch.tensor(p)) == pytest.approx(found, abs=1e-5)


@pytest.mark.parametrize("c", [1, 2, 5])
def test_its_ends_are_closed_forms(c: int) -> None:
    p, q = torch.tensor([0.3, 0.7, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    assert mauve.frontier_area(p, p, c) == pytest.approx(1, abs=1e-9)
    # the frontier is ((1 - l)^c, l^c): c B(c, c + 1)
    apart = math.factorial(c) ** 2 / math.factorial(2 * c)
    assert mauve.frontier_area(p, q, c) == pytest.approx(apart, abs=1e-6)


def clusters(n: int, at: Sequence[float], seed: int) -> Tensor:
    """n points in clusters whose directions are these degrees."""
    generator = torch.Generator().manual_seed(seed)
    angle = torch.tensor(at).repeat(-(-n // len(at)))[:n]
    angle = (angle + torch.randn(n, generator=generator)) * math.pi / 180
    return torch.stack([angle.cos(), angle.sin(), torch.zeros(n)], 1) * 7


def test_the_same_is_one_and_what_lies_apart_is_nothing() -> None:
    ours, theirs, apart = (
        clusters(200, at, seed)
        for at, seed in (([10, 50, 90], 0), ([10, 50, 90], 1), ([190, 250, 300], 2))
    )
    assert mauve.mauve(ours, ours.flip(0)) == pytest.approx(1, abs=1e-9)
    assert mauve.mauve(ours, apart) == pytest.approx(0.003968, abs=1e-4)
    half = torch.cat([theirs[:100], apart[:100]])
    values = [mauve.mauve(one, theirs) for one in (ours, half, apart)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.9
    assert mauve.mauve(ours * torch.rand(200, 1), theirs) == pytest.approx(values[0], abs=0.05)


def test_histograms_count_cells_of_both() -> None:
    ours, theirs = clusters(30, [0, 120], 3), clusters(60, [0, 120, 240], 4)
    p, q = mauve.histograms(ours, theirs, seed=0)
    assert len(p) == len(q) == 3  # a tenth of the smaller set
    assert sorted(p.tolist()) == pytest.approx([0, 0.5, 0.5])
    assert q.tolist() == pytest.approx([1 / 3] * 3)
    alike = torch.ones(40, 5)
    assert mauve.mauve(alike, alike) == pytest.approx(1)


SENTENCES = ["a red star", "a small blue dot is near the red star", "the star", "a dot"]


def test_the_judge_is_asked_at_the_last_token() -> None:
    words = train_tokenizer(SENTENCES, "word", size=50)
    torch.manual_seed(0)
    model = build_learner(text_config("model=causal", "data.length=12"), len(words)).eval()
    assert isinstance(model, CausalLM)
    found = JudgeFeatures(Judge(model, words, "judge", {})).features(SENTENCES)
    assert found.shape == (4, 32)
    for text, feature in zip(SENTENCES, found, strict=True):
        ids = torch.tensor([[BOS, *words.encode(text)]])
        states = model.model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        assert_close(feature, states[0, -1].detach(), atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of transformers with a tokenizer."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("models") / "little"
    names = sorted({word for text in SENTENCES for word in text.split()} | {"[UNK]", "[BOS]"})
    plain = Tokenizer(WordLevel({word: i for i, word in enumerate(names)}, unk_token="[UNK]"))
    plain.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token="[UNK]", bos_token="[BOS]", model_max_length=16
    ).save_pretrained(path)
    torch.manual_seed(0)
    shape = GPT2Config(vocab_size=len(names), n_positions=16, n_embd=8, n_layer=1, n_head=2)
    GPT2LMHeadModel(shape).save_pretrained(path)
    return path


def test_a_folder_gives_the_last_state_at_the_last_token(folder) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    seen = build_features(f"transformers:{folder}")
    assert isinstance(seen, FolderFeatures)
    found = seen.features([*SENTENCES, "", "star " * 40])
    assert found.shape == (6, 8)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text, feature in zip(SENTENCES, found, strict=False):
        states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        assert_close(feature, states.hidden_states[-1][0, -1].detach(), atol=1e-5, rtol=1e-5)
    assert str(seen.facts["name"]).startswith("little-")


def test_a_model_that_reads_one_text_and_writes_another_is_refused(folder, tmp_path) -> None:
    from transformers import AutoTokenizer, T5Config, T5Model

    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    T5Model(T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)).save_pretrained(
        tmp_path
    )
    with pytest.raises(CheckpointError, match=r"a T5Model, .* expected a model that reads one"):
        build_features(f"transformers:{tmp_path}")


def test_features_that_there_are_not_are_refused(tmp_path) -> None:
    for asked in ("x:y", "transformers:", "inception:file"):
        with pytest.raises(ConfigError, match="expected judge, or transformers:FOLDER"):
            build_features(asked)
    with pytest.raises(CheckpointError, match="not readable as a model"):
        build_features(f"transformers:{tmp_path}")


def test_evaluate_tells_it_beside_held_out_sentences(make_run, cache, folder) -> None:
    run = make_run("codec.kind=embedding")
    found = PANEL.evaluate(run, EvaluateRequest(n=60, steps=2))
    assert found["mauve_samples"] == 60
    assert 0 < found["mauve"] < found["mauve_held_out"] <= 1
    assert found["features"]["name"] == found["judge"]["name"]
    more = PANEL.evaluate(run, EvaluateRequest(n=500, steps=1))
    assert more["mauve_samples"] == 200  # half of the held-out sentences
    result = diptych(
        "evaluate", run, "-n", "30", "--steps", "1", "--features", f"transformers:{folder}"
    )
    assert result.code == 0, result.err
    assert "mauve" in result.out


def test_models_that_write_nothing_have_no_features(make_run) -> None:
    run = make_run("model=autoencoder")
    with pytest.raises(ConfigError, match="model: autoencoder writes nothing"):
        PANEL.evaluate(run, EvaluateRequest(n=9, features="transformers:x"))
