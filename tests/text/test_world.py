"""What guides a target and what judges it: tags, phrases and trees, learned or exact."""

import json
from pathlib import Path

import pytest
import torch

from shared.errors import ConfigError, DataError
from shared.guidance.effort import Effort
from shared.requests import ControlRequest
from shared.tokenizer import EOS, PAD, Tokenizer, train_tokenizer
from text.control import Control, Target, Vocabulary, compile_controls, find_world, parse_controls
from text.control.analysis import of_reading, skeleton
from text.control.spans import Phrases, symbol
from text.control.tagger import fit_tagger, lexicon
from text.control.targets import Tagged
from text.control.trees import signs
from text.control.world import RealText, SceneWorld, half
from text.english import english
from text.language import vocabulary
from text.panel import PANEL
from text.reader import analyse

LENGTH = 24
SENTENCE = "the picture shows a red star at the top left ."
SCENE = train_tokenizer([" ".join([*sorted(vocabulary(english("some"))), "an"])], "word", 400)


def accepts(automaton, tokenizer: Tokenizer, sentence: str) -> bool:
    ids = [*tokenizer.encode(sentence), EOS]
    return automaton.accepts_row(ids + [PAD] * (LENGTH - len(ids)))


def scene_accepts(control: Control, sentence: str) -> bool:
    found = SceneWorld(SCENE).vocabulary(Target(()))
    return accepts(compile_controls([control], found, LENGTH), SCENE, sentence)


# Trees and phrases of the scene world.


def test_a_tree_is_read_off_a_sentence():
    reading = analyse(SENTENCE)
    assert reading is not None
    tree = "(S (NP DET NOUN) (VP VERB (NP (NP DET ADJ NOUN) (PP ADP (NP DET ADJ NOUN)))) PUNCT)"
    assert skeleton(reading.tree) == tree
    spans = {(0, 1, "NP"), (2, 9, "VP"), (3, 9, "NP"), (3, 5, "NP"), (6, 9, "PP"), (7, 9, "NP")}
    assert of_reading(reading).spans == spans | {(0, 10, "S")}


def test_the_automaton_of_a_tree_accepts_the_sentences_that_have_it():
    reading = analyse(SENTENCE)
    assert reading is not None
    control = Control("tree", skeleton(reading.tree))
    same = [
        SENTENCE,
        "the drawing has a blue moon at the bottom right .",
        "the picture shows an orange disc at the top left .",
    ]
    other = [
        "the picture shows a red star on the left .",  # a shorter place
        "the picture shows a orange disc at the top left .",  # its article
        "the picture shows a red star at the top left",
        "there is a red star at the top left of it .",
    ]
    for sentence in same:
        assert scene_accepts(control, sentence)
        read = analyse(sentence)
        assert read is not None
        assert control.success(sentence, of_reading(read))
    assert not any(scene_accepts(control, sentence) for sentence in other)
    shorter = analyse(other[0])
    assert shorter is not None
    assert not control.success(other[0], of_reading(shorter))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ("(S (NP DET)", "expected one tree with tags"),
        ("(S DET) (S DET)", "expected one tree with tags"),
        ("DET NOUN", "expected one tree with tags"),
        ("(S (NP det NOUN))", "expected one tree with tags"),
        ("(S (NP DET NOUN))", "no sentence of this world, in the model's words, has that tree"),
    ],
)
def test_what_is_no_tree_is_refused(tree: str, message: str):
    with pytest.raises(ConfigError, match=message):
        scene_accepts(Control("tree", tree), SENTENCE)


def test_signs_of_a_tree():
    assert signs("(S (NP DET NOUN) VERB)", "") == ["(S", "(NP", "DET", "NOUN", ")", "VERB", ")"]


def test_phrases_of_the_scene_world_stand_where_they_are_asked_for():
    control = Control("span", "6-9 PP")
    assert scene_accepts(control, SENTENCE)
    assert not scene_accepts(control, "the picture shows a big red star at the top left .")
    assert not scene_accepts(control, "the picture shows a red star .")
    reading = analyse(SENTENCE)
    assert reading is not None
    assert control.success(SENTENCE, of_reading(reading))
    assert not Control("span", "6-8 PP").success(SENTENCE, of_reading(reading))
    with pytest.raises(ConfigError, match="span = '0-1 QP': expected a label that was seen, one"):
        scene_accepts(Control("span", "0-1 QP"), SENTENCE)


# Phrases learned from examples.

WORDS = train_tokenizer(["the a red blue star dot is near , ."], "word", 50)
TAGS = {
    "the": {"DET"}, "a": {"DET"}, "red": {"ADJ", "NOUN"}, "blue": {"ADJ"}, "star": {"NOUN"},
    "dot": {"NOUN"}, "is": {"AUX"}, "near": {"ADP"}, ",": {"PUNCT"}, ".": {"PUNCT"},
}  # fmt: skip


def test_a_phrase_is_what_three_symbols_in_a_row_were_seen_to_be():
    rows = ["DET NOUN AUX", "DET ADJ ADJ ADJ NOUN AUX", "DET ADJ NOUN ."]
    seen = [((0, 1, "NP")), ((0, 4, "NP")), ((0, 2, "S::NP"))]
    phrases = Phrases.learn((row.split(), span) for row, span in zip(rows, seen, strict=True))

    def phrase(span: str, sentence: str) -> bool:
        known = Vocabulary(WORDS, TAGS, phrases=phrases)
        found = compile_controls([Control("span", span)], known, LENGTH)
        return accepts(found, WORDS, sentence)

    assert phrase("0-1 NP", "the star is")
    assert phrase("0-4 NP", "the red red blue star is near")
    assert phrase("0-6 NP", "the red red blue red blue star is near")  # any number of adjectives
    assert phrase("0-2 NP", "the red star .")
    assert phrase("0-1 NP", "the red is")  # a noun too
    assert not phrase("0-1 NP", "the star near")  # never before ADP
    assert not phrase("0-1 NP", "the blue is")
    assert not phrase("0-2 NP", "the star is")
    assert not phrase("0-1 NP", "the star")  # never at the end
    with pytest.raises(ConfigError, match="no sentence of at most"):
        phrase("1-2 NP", "is the star")  # never after a word


def test_no_phrase_is_learned_across_a_full_stop():
    assert symbol(".", "PUNCT") == "."
    assert symbol("star", "NOUN") == "NOUN"
    assert Phrases.learn([(["NOUN", ".", "NOUN"], (0, 2, "NP"))]).seen == {}
    assert Phrases.learn([(["NOUN", ".", "NOUN", "."], (0, 2, "S"))]).seen == {}


def test_a_text_of_several_sentences_is_an_s_from_its_first_word_to_its_last():
    rows = ["DET NOUN . DET NOUN .", "ADJ NOUN ."]
    phrases = Phrases.learn((row.split(), (0, len(row.split()) - 1, "S")) for row in rows)

    def phrase(span: str, sentence: str) -> bool:
        found = compile_controls(
            [Control("span", span)], Vocabulary(WORDS, TAGS, phrases=phrases), LENGTH
        )
        return accepts(found, WORDS, sentence)

    assert phrase("0-5 S", "the star . a dot .")
    assert phrase("0-8 S", "the star . a dot . a red .")
    assert phrase("0-2 S", "blue star .")
    assert not phrase("0-5 S", "the star . a dot . a dot .")  # never before another word
    with pytest.raises(ConfigError, match="no sentence of at most"):
        phrase("1-6 S", "near the star . a dot .")


# Tags learned from tagged sentences: the halves, and that nobody judges what he has seen.


def tagged(said: str, *spans: tuple[int, int, str]) -> Tagged:
    words, tags = zip(*(pair.rsplit("/", 1) for pair in said.split()), strict=True)
    return Tagged(words, tags, spans)


def corpus() -> tuple[Tagged, ...]:
    """40 sentences in which `watch` is a verb after PRON, a noun after DET."""
    names = ["Anna", "Bert", "Carl", "Dora", "Emil", "Finn", "Gina", "Hugo", "Ines", "Jana"]
    said = [
        form.format(name)
        for name in names
        for form in (
            "{}/PROPN has/VERB a/DET watch/NOUN ./PUNCT",
            "they/PRON watch/VERB {}/PROPN ./PUNCT",
            "the/DET watch/NOUN is/AUX near/ADP {}/PROPN ./PUNCT",
            "we/PRON watch/VERB the/DET star/NOUN near/ADP {}/PROPN ./PUNCT",
        )
    ]
    return tuple(map(tagged, said))


@pytest.fixture
def cache(monkeypatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_tagger_reads_words_by_their_neighbours_and_is_kept(cache: Path):
    tagger = fit_tagger(corpus())
    new = ("they", "watch", "a", "watch", "near", "Zoe", ".")
    assert tagger.tag(new) == ("PRON", "VERB", "DET", "NOUN", "ADP", "PROPN", "PUNCT")
    assert tagger.accuracy(corpus()) == 1.0
    wrong = Tagged(new, ("PRON", "VERB", "DET", "VERB", "ADP", "PROPN", "PUNCT"))
    assert tagger.accuracy([wrong]) == pytest.approx(6 / 7)
    assert len(list(cache.glob("text-tagger-*"))) == 1
    again = fit_tagger(corpus())
    assert (again.weights == tagger.weights).all()
    next(cache.glob("text-tagger-*/names.json")).write_text("{")  # damaged: fitted again
    assert fit_tagger(corpus()).tag(new) == tagger.tag(new)
    with pytest.raises(DataError, match="needs two tags or more"):
        fit_tagger([tagged("a/X b/X")])


def test_two_tags_are_enough(cache: Path):
    tagger = fit_tagger([tagged("a/X b/Y"), tagged("b/Y a/X")])
    assert tagger.tag(("b", "a", "b")) == ("Y", "X", "Y")


def test_a_lexicon_keeps_the_tags_that_are_frequent_enough():
    said = [tagged("watch/NOUN watch/NOUN watch/NOUN watch/VERB it/PRON")]
    assert lexicon(said, 0.25) == {"watch": {"NOUN", "VERB"}, "it": {"PRON"}}
    assert lexicon(said, 0.3) == {"watch": {"NOUN"}, "it": {"PRON"}}


def test_guide_and_judge_of_a_target_come_from_different_halves(cache: Path, monkeypatch):
    """A word with a tag of its own in one half only: the guide of that half knows it, its judge
    does not, and the other way round."""
    sentences = corpus()
    halves = [[s for s in sentences if half(s.words) == h] for h in (0, 1)]
    assert min(map(len, halves)) >= 10
    learned: list[tuple[Tagged, ...]] = []
    monkeypatch.setattr(
        "text.control.world.fit_tagger", lambda own: learned.append(tuple(own)) or fit_tagger(own)
    )
    tokenizer = train_tokenizer([" ".join(s.words) for s in sentences], "word", 60)
    world = RealText(tokenizer, sentences)
    for one in sentences:
        target = Target((Control("pos", " ".join(one.tags)),), one.words)
        own = half(target.words)
        [analysis] = world.analyse([" ".join(target.words)], [target])
        assert analysis is not None
        assert analysis.tags is not None
        assert world.vocabulary(target).tags == lexicon(halves[own], 0.5)
        judge, guide = (fit_tagger(halves[number]) for number in (1 - own, own))
        assert analysis.tags == judge.tag(target.words)
        read = Target((Control("pos", " ".join(guide.tag(target.words))),), target.words)
        assert world.promise([" ".join(target.words)], [read]) == [1.0]
    assert set(learned) == {tuple(halves[1]), tuple(halves[0])}
    about = world.about({"pos"})["halves"]
    assert [fold["judged"] for fold in about] == [len(own) for own in halves]
    assert all(0.8 < fold["tags_right"] <= 1 for fold in about)


def test_the_value_is_what_must_occur_in_real_text():
    tokenizer = train_tokenizer(["The Golden Moon sells red tea ."], "word", 40)
    world = find_world("text.txt", tokenizer, None)
    target = Target(tuple(parse_controls(["says=name: Golden Moon"])))
    automaton = compile_controls(target.controls, world.vocabulary(target), LENGTH)
    for said, wanted in [("The Golden Moon sells tea .", True), ("The Golden tea Moon .", False)]:
        assert accepts(automaton, tokenizer, said) == wanted
        [analysis] = world.analyse([said], [target])
        assert target.controls[0].success(said, analysis) == wanted
    for word, message in [
        ("says=name", "expected a field and its value"),
        ("says=name: Silver", "the model has no words for it"),
        ("pos=DET", "parts of speech are known in the scene world .* give --tagged FOLDER"),
        ("span=0-1 NP", "phrases are known in the scene world"),
        ("tree=(S DET)", "whole trees are known in the scene world only"),
    ]:
        with pytest.raises(ConfigError, match=message):
            compile_controls(parse_controls([word]), world.vocabulary(target), LENGTH)
    with pytest.raises(ConfigError, match="tagged: the scene world's parts of speech are known"):
        find_world("scene", tokenizer, Path("folder"))


# Success as the paper counts it.


def test_scores_count_places_of_tags_and_lengths_within_two():
    [world] = [find_world("text.txt", WORDS, None)]
    [analysis] = world.analyse(["a b c"], [Target(())])
    assert analysis is not None
    read = type(analysis)(analysis.says, ("DET", "ADJ", "NOUN"))
    assert Control("pos", "DET NOUN NOUN AUX").score("a b c", read) == 0.5
    assert Control("pos", "DET ADJ").score("a b c", read) == 1.0
    assert not Control("pos", "DET ADJ").success("a b c", read)
    assert Control("pos", "DET").score("a b c") == 0.0
    lengths = [Control("length", "8").score(" ".join("a" * n)) for n in range(4, 13)]
    assert lengths == [0, 0, 1, 1, 1, 1, 1, 0, 0]


# Evaluation of files.


def test_targets_that_cannot_be_satisfied_count_as_missed(make_run, tmp_path: Path):
    file = tmp_path / "targets.jsonl"
    lines = [{"length": 5}, {"contains": "unheard"}, {"length": 40}, {"span": "0-1 NP"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    request = ControlRequest(n=2, steps=3, evaluate=file)
    result = PANEL.control(make_run(), [], request, tmp_path / "out")
    assert result["success"].pop("span") <= 1.0
    assert result["success"] == {"length": 0.5, "contains": 0.0}
    assert [missed["controls"] for missed in result["missed"]] == [
        ["contains=unheard"],
        ["length=40"],
    ]
    assert result["sentences"] == 4
    assert result["evaluations"] == {"forward": 3.0, "backward": 3.0}
    assert set(result["lm_score"]) == {"controlled", "uncontrolled", "held_out"}
    with pytest.raises(ConfigError, match="leave out other controls"):
        PANEL.control(make_run(), ["length=3"], request, tmp_path / "out")
    file.write_text('{"length": 40}\n')
    with pytest.raises(ConfigError, match="can satisfy none of 1 targets: length='40'"):
        PANEL.control(make_run(), [], request, tmp_path / "out")


def test_more_rows_are_counted_as_such():
    net = torch.nn.Linear(3, 2)
    with Effort(net) as effort:
        net(torch.ones(5, 3, requires_grad=True)).sum().backward()
        with torch.no_grad():
            net(torch.ones(4, 3))
    net(torch.ones(7, 3))
    assert effort.per(2) == {"forward": 4.5, "backward": 2.5}
