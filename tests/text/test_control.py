"""Controls: what they ask, what they accept, and that a sampler under them is exact."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shared import scene
from shared.codec import Bits
from shared.denoiser import Denoiser
from shared.errors import ConfigError
from shared.requests import ControlRequest
from shared.schedule import Cosine, Level
from shared.solver import sample
from shared.tokenizer import EOS, PAD, Tokenizer, train_tokenizer
from tests.guided import flow_level, normals
from text.codec import Embedding
from text.control import (
    Automata,
    Automaton,
    Control,
    Vocabulary,
    compile_controls,
    controlled,
    nearest_accepted,
    parse_controls,
)
from text.control.analysis import of_reading
from text.control.automaton import build
from text.control.controls import PATTERNS
from text.control.lexicon import scene_phrases, scene_tags, tags_of
from text.control.pattern import matches
from text.panel import PANEL
from text.reader import analyse
from text.teller import tell

LENGTH = 9
WORDS = train_tokenizer(["the red star is near a blue dot . ?"], "word", size=50)
TAGS = {
    "the": {"DET"}, "a": {"DET"}, "red": {"ADJ", "NOUN"}, "blue": {"ADJ"}, "star": {"NOUN"},
    "dot": {"NOUN"}, "is": {"AUX"}, "near": {"ADP"}, ".": {"PUNCT"},
}  # fmt: skip
VOCABULARY = Vocabulary(WORDS, TAGS, scene_phrases)


def row(sentence: str, tokenizer: Tokenizer = WORDS, length: int = LENGTH) -> list[int]:
    ids = [*tokenizer.encode(sentence), EOS]
    return ids + [PAD] * (length - len(ids))


def accepts(control: str, sentence: str) -> bool:
    return compile_controls(parse_controls([control]), VOCABULARY, LENGTH).accepts_row(
        row(sentence)
    )


CASES = [
    ("length=3", "the red star", "the star"),
    ("length=2-3", "the star", "the red star ."),
    ("contains=red star", "the red star is near", "the red dot is near a star"),
    ("contains=red red star", "red red red star", "red red the star"),
    ("avoids=red", "the blue star", "the red star"),
    ("avoids=red star", "red the star", "a red star"),
    ("avoids=red | blue", "the star", "a blue star"),
    ("suffix=star | dot", "a red dot", "a dot ."),
    ("prefix=the red", "the red dot", "a red dot"),
    ("suffix=dot .", "a red dot .", "a dot . ."),
    ("pos=DET NOUN AUX", "the red is", "the blue is"),
    ("pattern=the (red|blue)? star", "the star", "the red blue star"),
    ("pattern=the (red | blue star)+ [MASK]{1,2}", "the red blue star red a", "the red"),
    ("pattern=<DET> [MASK]* <NOUN> ?", "the blue star ?", "the blue ?"),
]


@pytest.mark.parametrize(("control", "good", "bad"), CASES)
def test_automata_accept_what_is_asked_for(control: str, good: str, bad: str):
    assert accepts(control, good)
    assert not accepts(control, bad)


@pytest.mark.parametrize(("control", "good", "bad"), CASES)
def test_success_on_text_says_the_same(control: str, good: str, bad: str):
    one = parse_controls([control])[0]
    if "<" in one.pattern:
        assert not one.success(good)  # without a reading
    else:
        assert one.success(good)
        assert not one.success(bad)


SENTENCE = "at the top left there is a small plaid crimson moon ."


@pytest.mark.parametrize(
    ("control", "wanted"),
    [
        ("says=colour:red", True),
        ("says= size : small", True),
        ("says=texture:plaid", True),
        ("says=shape:moon", True),
        ("says=place:top left", True),
        ("says=colour:blue", False),
        ("says=place:top", False),
        ("pos=ADP DET ADJ NOUN PRON VERB DET ADJ ADJ ADJ NOUN PUNCT", True),
        ("pos=ADP DET ADJ ADV PRON VERB DET ADJ ADJ ADJ NOUN PUNCT", False),
        ("pattern=[MASK]* <NOUN> there <VERB> [MASK]*", True),
        ("pattern=[MASK]* <ADJ> there <VERB> [MASK]*", False),
    ],
)
def test_what_is_said_is_read_in_the_sentence(control: str, wanted: bool):
    reading = analyse(SENTENCE)
    assert reading is not None
    assert parse_controls([control])[0].success(SENTENCE, of_reading(reading)) == wanted


def test_a_fact_may_be_said_in_every_way_that_the_model_has_words_for():
    assert scene_phrases("colour:red") == ("crimson", "red", "scarlet")
    tokenizer = train_tokenizer(["a red star . a scarlet dot at the top left"], "word", size=50)
    red = Control("says", "colour:red").automaton(
        Vocabulary(tokenizer, scene_tags(), scene_phrases)
    )
    assert red.accepts_row(row("a scarlet star .", tokenizer))
    assert red.accepts_row(row("a red star .", tokenizer))
    assert not red.accepts_row(row("a star .", tokenizer))
    with pytest.raises(ConfigError, match="has no words for it"):
        Control("says", "colour:blue").automaton(Vocabulary(tokenizer, scene_tags(), scene_phrases))


def test_rows_that_are_no_sentences_are_not_accepted():
    anything = compile_controls(parse_controls(["pattern=[MASK]*"]), VOCABULARY, LENGTH)
    a, star = WORDS.encode("a star")
    assert anything.accepts_row([a, star, EOS, PAD])
    for ids in ([a, star], [a, EOS, star], [a, PAD, EOS], [a, EOS, EOS], [a, 2, EOS], [a, 1, EOS]):
        assert not anything.accepts_row(ids)


def test_words_of_several_pieces_are_whole_words():
    sentences = ["red reddish star", "stardust dust", "red dish"] * 4
    pieces = train_tokenizer(sentences, "unigram", size=18)
    vocabulary = Vocabulary(pieces)
    automaton = compile_controls(parse_controls(["contains=red", "length=2"]), vocabulary, 20)
    assert automaton.accepts_row(row("red star", pieces, 20))
    assert not automaton.accepts_row(row("reddish star", pieces, 20))
    assert not automaton.accepts_row(row("red reddish star", pieces, 20))


@pytest.mark.parametrize(
    ("control", "message"),
    [
        ("lenght=3", "control = 'lenght': expected one of .*; did you mean length"),
        ("length", "'length': expected NAME=VALUE"),
        ("length=0", "length = '0': expected a number of words"),
        ("length=5-3", "expected a number of words, or a range"),
        ("contains=", "contains = '': expected words"),
        (
            "contains=stars",
            "contains = 'stars': the model does not know 'stars'; near it are star",
        ),
        ("pos=DET VERB", "<VERB>: expected one of ADJ, ADP"),
        ("says=colour", "says = 'colour': expected one of red, "),
        ("says=tint:red", "with one of shape, colour"),
        ("says=colour:mauve", "expected one of red, "),
        ("pos=det", "expected tags such as DET NOUN"),
        ("pattern=the (red", r"pattern = 'the \(red': does not read"),
        ("length=9", "no sentence of at most 8 tokens"),
        ("pattern=[MASK]{40}", "no sentence of at most 8 tokens"),
    ],
)
def test_what_cannot_be_asked_is_refused(control: str, message: str):
    with pytest.raises(ConfigError, match=message):
        compile_controls(parse_controls([control]), VOCABULARY, LENGTH)


def test_controls_that_exclude_each_other_are_refused():
    with pytest.raises(ConfigError, match="length='2', pos='DET NOUN AUX': no sentence"):
        compile_controls(parse_controls(["length=2", "pos=DET NOUN AUX"]), VOCABULARY, LENGTH)


def test_parts_of_speech_need_a_lexicon():
    with pytest.raises(ConfigError, match="parts of speech are known in the scene world"):
        compile_controls(parse_controls(["pos=DET"]), Vocabulary(WORDS), LENGTH)


# The scene world's parts of speech.


def test_lexicon_holds_every_tag_that_a_parse_gives():
    tags = scene_tags()
    for index in range(60):
        told = tell(scene.sample(3, index), 3, index)
        reading = analyse(told.sentence)
        assert reading is not None
        assert tags_of(reading) == list(told.tags)
        assert all(
            tag in tags[word] for word, tag in zip(told.sentence.split(), told.tags, strict=True)
        )


# The estimate under a control.

V, L, D = 5, 3, 4


def has(token: int) -> Automaton:
    return build((torch.arange(V) == token).long(), False, lambda s, k: bool(s) or k == 1, bool)


class Independent(Denoiser):
    """The exact logits of rows whose tokens are independent, p (L, V), in an embedding codec."""

    def __init__(self, codec: Embedding, p: Tensor) -> None:
        super().__init__(torch.nn.Identity(), "categorical", codec=codec)
        self.words, self.p = codec, p

    def output(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        return self.words.evidence(x_t, level) + self.p.log()


@pytest.fixture
def exact() -> Independent:
    torch.manual_seed(2)
    codec = Embedding(V, L, D).double()
    p = torch.rand(L, V, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return Independent(codec, p / p.sum(-1, keepdim=True))


def test_estimate_is_the_mean_given_acceptance(exact: Independent):
    """E[x0 | x_t, accepted] over all rows written out; each sample has a level of its own."""
    automata = Automata.of([has(2), has(0), has(4), has(1)])
    level, x_t = flow_level(0.2, 0.4, 0.6, 0.8), normals(4, L, D)
    law = exact.words.log_probs(exact.output(x_t, level, None, None)).exp()
    rows = torch.cartesian_prod(*[torch.arange(V)] * L)
    joint = law[:, torch.arange(L), rows].prod(-1)
    joint = joint * torch.stack([(rows == token).any(1) for token in (2, 0, 4, 1)])
    weights = joint / joint.sum(1, keepdim=True)
    expected = torch.einsum("br,rld->bld", weights, exact.words.encode(rows).double())
    got = controlled(exact, automata)(x_t, level)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
    plain = exact.words.mean(exact.output(x_t, level, None, None))
    twice = controlled(exact, automata, 2.0)(x_t, level)
    torch.testing.assert_close(twice, plain + 2 * (expected - plain), atol=1e-6, rtol=1e-6)


class Told(Independent):
    """Independent words whose law is p[c] under condition c."""

    def output(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        assert condition is not None
        return self.words.evidence(x_t, level) + self.p[condition[:, 0]].log()


def test_guidance_to_a_source_and_control_are_of_one_law(exact: Independent):
    """E[x0 | accepted] under the guided law p_0^(1-s) p_c^s of each word, rows written out."""
    p = torch.rand(3, L, V, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    told = Told(exact.words, p / p.sum(-1, keepdim=True))
    condition, automata = torch.tensor([[1], [2]]), Automata.of([has(2), has(0)])
    level, x_t, s = flow_level(0.3, 0.6), normals(2, L, D), 2.5
    evidence = exact.words.evidence(x_t, level)
    logits = evidence + (1 - s) * told.p[0].log() + s * told.p[condition[:, 0]].log()
    law = logits.softmax(-1)
    rows = torch.cartesian_prod(*[torch.arange(V)] * L)
    joint = law[:, torch.arange(L), rows].prod(-1)
    joint = joint * torch.stack([(rows == token).any(1) for token in (2, 0)])
    weights = joint / joint.sum(1, keepdim=True)
    expected = torch.einsum("br,rld->bld", weights, exact.words.encode(rows).double())
    got = controlled(told, automata, guidance=s)(x_t, level, condition)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)


def test_samples_follow_the_exact_conditional(exact: Independent):
    """All 5^3 rows that hold the token, against their law: a chi-square test."""
    n, automaton = 4000, has(3)
    automata = Automata.of([automaton] * n)
    noise = torch.randn(n, L, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    denoise = controlled(exact, automata)
    x0 = sample(denoise, noise, Cosine(), "ancestral", 200, seeds=range(n))
    found = nearest_accepted(exact, x0.float(), automata)
    rows = torch.cartesian_prod(*[torch.arange(V)] * L)
    law = exact.p[torch.arange(L), rows].prod(1) * (rows == 3).any(1)
    law = law / law.sum()
    counts = torch.zeros(len(rows)).index_add_(
        0, found @ torch.tensor([V * V, V, 1]), torch.ones(n)
    )
    assert counts[law == 0].sum() == 0
    likely = law * n >= 5
    expected = torch.cat([law[likely] * n, law[~likely].sum()[None] * n])
    seen = torch.cat([counts[likely], counts[~likely].sum()[None]]).double()
    statistic = ((seen - expected) ** 2 / expected).sum().item()
    degrees = len(expected) - 1
    assert abs(statistic - degrees) < 3.5 * math.sqrt(2 * degrees)


def test_without_a_restriction_it_is_the_denoisers_estimate(exact: Independent):
    free = build(torch.zeros(V), None, lambda state, kind: None, lambda state: True)
    level, x_t = flow_level(0.3, 0.7), normals(2, L, D)
    got = controlled(exact, Automata.of([free, free]))(x_t, level)
    law = exact.output(x_t, level, None, None).softmax(-1)
    torch.testing.assert_close(got, law @ exact.words.encode(torch.arange(V)).double())


def test_bits_give_laws_of_valid_words_only():
    codec = Bits(V, (L,))
    logits = normals(2, L, 3)
    law = codec.log_probs(logits).exp()
    signs = codec.signs(torch.arange(V)).double()
    each = torch.sigmoid(logits.unsqueeze(-2) * signs).prod(-1)
    torch.testing.assert_close(law, each / each.sum(-1, keepdim=True))


def test_a_model_without_logits_cannot_be_controlled():
    denoiser = Denoiser(torch.nn.Identity(), "v", codec=Embedding(V, L, D))
    with pytest.raises(ConfigError, match="controls need the law of each word"):
        controlled(denoiser, Automata.of([has(2)]))


# From a run, and from the command.


@pytest.mark.parametrize("codec", ["embedding", "bits"])
def test_every_sentence_of_a_run_satisfies_its_controls(make_run, tmp_path: Path, codec: str):
    run = make_run(f"codec.kind={codec}")
    asked = ["contains=a", "length=4-6", "avoids=the"]
    result = PANEL.control(run, asked, ControlRequest(n=5, steps=4), tmp_path)
    assert result["success"] == {"contains": 1.0, "length": 1.0, "avoids": 1.0}
    assert result["all"] == 1.0
    said = json.loads((tmp_path / "controlled.json").read_text())["targets"][0]["texts"]
    assert all(4 <= len(text.split()) <= 6 and "a" in text.split() for text in said)


def test_every_candidate_satisfies_the_controls_of_its_sentence(make_run, tmp_path: Path):
    file = tmp_path / "targets.jsonl"
    file.write_text('{"length": 4}\n{"length": 6}\n')
    result = PANEL.control(
        make_run(), [], ControlRequest(n=2, steps=3, mbr=3, targets=file), tmp_path
    )
    assert result["success"] == {"length": 1.0}


def test_sentences_are_controlled_and_written_from_a_source(make_run, tmp_path: Path):
    reads = ("data.source=scene", "data.source_length=40", "net.cross_attention=true")
    run = make_run(*reads, "net.source_depth=1")
    prompt = "plain adult , large red solid circle top"
    request = ControlRequest(n=3, steps=3, prompt=prompt, guidance=2, control_scale=1)
    result = PANEL.control(run, ["length=9"], request, tmp_path)
    assert result["success"] == {"length": 1.0}
    settings = json.loads((tmp_path / "controlled.json").read_text())["settings"]
    assert (settings["guidance"], settings["control_scale"]) == (2, 1)
    assert settings["prompt"] == prompt
    with pytest.raises(ConfigError, match=r"guidance.*Give a prompt"):
        PANEL.control(run, ["length=9"], ControlRequest(guidance=2), tmp_path)
    with pytest.raises(ConfigError, match="control_scale = nan"):
        ControlRequest(control_scale=math.nan)


def test_controls_of_one_name_are_all_told(make_run, tmp_path: Path):
    asked = ["contains=a", "contains=the", "length=5"]
    PANEL.control(make_run(), asked, ControlRequest(n=1, steps=2), tmp_path)
    said = json.loads((tmp_path / "controlled.json").read_text())["targets"][0]
    assert said["controls"] == asked
    assert {"a", "the"} <= set(said["texts"][0].split())


def test_targets_are_sampled_together_as_alone(make_run, tmp_path: Path):
    """Sample i depends on its own target and seed."""
    run, file = make_run(), tmp_path / "targets.jsonl"
    file.write_text('{"length": 5}\n{"prefix": "the"}\n')
    together = PANEL.control(run, [], ControlRequest(n=2, steps=4, targets=file), tmp_path / "a")
    alone = PANEL.control(run, ["prefix=the"], ControlRequest(n=2, steps=4, seed=2), tmp_path / "b")
    texts = [
        json.loads((tmp_path / name / "controlled.json").read_text())["targets"] for name in "ab"
    ]
    assert together["sentences"] == 4
    assert alone["sentences"] == 2
    assert texts[0][1]["texts"] == texts[1][0]["texts"]


def test_asking_nothing_twice_or_of_the_reference_is_refused(make_run, tmp_path: Path):
    run = make_run()
    with pytest.raises(ConfigError, match="say what is asked for"):
        PANEL.control(run, [], ControlRequest(), tmp_path)
    with pytest.raises(ConfigError, match="not both"):
        PANEL.control(run, ["length=5"], ControlRequest(targets=tmp_path / "x"), tmp_path)
    with pytest.raises(ConfigError, match="causal"):
        PANEL.control(make_run("model=causal"), ["length=5"], ControlRequest(), tmp_path)


def test_every_named_pattern_reads():
    for name in PATTERNS:
        value = {"length": "3", "pos": "DET NOUN"}.get(name, "the star")
        control = Control(name, value)
        said = {"length": "a b c"}.get(name, "the star")
        assert matches(control.pattern, said, ["DET", "NOUN", "NOUN"][: len(said.split())])
