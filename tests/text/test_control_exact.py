"""Every control beside the exact conditional, on words whose law is known at every noise level.

One topic: words are independent, and `controlled` is exact. Two topics: words depend on each other,
and guidance by the exact p_t(y | x_t) is exact; what Diffusion-LM's updates and gradients through
x0_hat sample instead is pinned as it is. What satisfies a control is said in plain Python, of all
781 sentences of at most four words.
"""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.words import ASKED as ASKED_WORD
from benchmarks.words import METHODS, Topics, counted, draw, holds, measured, topics
from shared.guidance import LogProb, classifier
from shared.guidance.logic import log_not
from shared.schedule import Level
from shared.tokenizer import EOS, PAD, SPECIAL, train_tokenizer
from tests.guided import f64, flow_level, normals
from text.codec import Embedding
from text.control import (
    Automata,
    Vocabulary,
    compile_controls,
    controlled,
    nearest_accepted,
    parse_controls,
)
from text.control.paths import log_accepted
from text.control.spans import Phrases
from text.grammar import Choice, Leaf, Phrase

L, D, STEPS = 5, 4, 50  # the end takes a place: sentences have 4 words at most
N = 400  # samples of each control
RARE = 1e-4  # what the test of one control gives by chance
TOKENIZER = train_tokenizer(["the red crimson star shines"], "word", size=50)
WORDS = [piece.lstrip("\u2581") for piece in TOKENIZER.pieces()]
V = len(WORDS)
TAGS = {
    "the": {"DET"}, "red": {"ADJ", "NOUN"}, "crimson": {"ADJ"}, "star": {"NOUN"},
    "shines": {"VERB"},
}  # fmt: skip
REDS, NOUNS = ("red", "crimson"), ("red", "star")
SEEN = [("DET NOUN VERB", (0, 1, "NP")), ("DET ADJ NOUN VERB", (0, 2, "NP"))]
GRAMMAR = Phrase(
    "S",
    [
        Phrase(
            "NP",
            [
                Leaf("the", "DET"),
                Choice([(1, Leaf(red, "ADJ")) for red in REDS]),
                Leaf("star", "NOUN"),
            ],
        ),
        Phrase("VP", [Leaf("shines", "VERB")]),
    ],
)
VOCABULARY = Vocabulary(
    TOKENIZER,
    TAGS,
    {"colour:red": REDS}.__getitem__,
    Phrases.learn((symbols.split(), span) for symbols, span in SEEN),
    GRAMMAR,
)


def is_phrase(w: list[str]) -> bool:
    """[the NOUN] VERB was seen, the only phrase of two words at the beginning."""
    return len(w) > 2 and w[0] == "the" and w[1] in NOUNS and w[2] == "shines"


def is_description(w: list[str]) -> bool:
    """the? <ADJ>+ <NOUN>"""
    bare = w[1:] if w[:1] == ["the"] else w
    return len(bare) > 1 and bare[-1] in NOUNS and all(word in REDS for word in bare[:-1])


# what is asked for, and what satisfies it
ASKED: dict[tuple[str, ...], Callable[[list[str]], bool]] = {
    ("length=3",): lambda w: len(w) == 3,
    ("length=2-3",): lambda w: len(w) in (2, 3),
    ("contains=red star",): lambda w: ("red", "star") in itertools.pairwise(w),
    ("contains=star", "contains=shines"): lambda w: {"star", "shines"} <= {*w},
    ("avoids=red",): lambda w: "red" not in w,
    ("prefix=the red",): lambda w: w[:2] == ["the", "red"],
    ("suffix=shines",): lambda w: w[-1:] == ["shines"],
    ("pattern=the [MASK] star [MASK]",): lambda w: len(w) == 4 and (w[0], w[2]) == ("the", "star"),
    ("pattern=the? <ADJ>+ <NOUN>",): is_description,
    ("pos=DET ADJ NOUN",): lambda w: (
        len(w) == 3 and w[0] == "the" and w[1] in REDS and w[2] in NOUNS
    ),
    ("span=0-1 NP",): is_phrase,
    ("tree=(S (NP DET ADJ NOUN) (VP VERB))",): lambda w: (
        len(w) == 4 and w[1] in REDS and (w[0], w[2], w[3]) == ("the", "star", "shines")
    ),
    ("says=colour:red",): lambda w: bool({*w} & {*REDS}),
    ("says=colour:red", "avoids=red", "length=2-4", "suffix=shines"): lambda w: (
        "crimson" in w and "red" not in w and len(w) > 1 and w[-1] == "shines"
    ),
    ("span=0-1 NP", "length=4"): lambda w: is_phrase(w) and len(w) == 4,
}
NAMES = [", ".join(asked) for asked in ASKED]
SENTENCES = [
    list(ids) for length in range(L) for ids in itertools.product(range(SPECIAL, V), repeat=length)
]
ROWS = torch.tensor([[*ids, EOS, *[PAD] * (L - 1 - len(ids))] for ids in SENTENCES])
SATISFIED = torch.tensor(
    [[wanted([WORDS[i] for i in ids]) for ids in SENTENCES] for wanted in ASKED.values()]
)


def oracle(many: int) -> Topics:
    """Independent words of one topic, or two, in which also a row's end is a word."""
    torch.manual_seed(2)
    p = normals(2, L, V, seed=4).softmax(-1)[:many]
    return Topics(Embedding(V, L, D).double(), f64(1.0) if many == 1 else f64(0.4, 0.6), p)


def all_automata(each: int) -> Automata:
    """Every control in turn, each for so many rows."""
    compiled = [compile_controls(parse_controls(asked), VOCABULARY, L) for asked in ASKED]
    return Automata.of([automaton for automaton in compiled for _ in range(each)])


def law(words: Topics) -> Tensor:
    """p(topic, sentence), (K, 781), not normalised."""
    return words.weights[:, None] * words.p[:, torch.arange(L), ROWS].prod(-1)


def counts_of(ids: Tensor) -> Tensor:
    """How often each sentence is among rows of ids (n, L); others are not counted."""
    same = (ids[:, None] == ROWS).all(-1)
    return same.sum(0).double()


def p_value(counts: Tensor, exact: Tensor) -> float:
    """Of Pearson's chi-square; what is expected fewer than 5 times is one cell."""
    expected = exact / exact.sum() * counts.sum()
    common = expected >= 5
    expected, seen = (
        torch.cat([x[common], x[~common].sum()[None]]) for x in (expected, counts.double())
    )
    if expected[-1] == 0:
        assert seen[-1] == 0
        expected, seen = expected[:-1], seen[:-1]
    statistic = ((seen - expected) ** 2 / expected).sum()
    assert len(expected) > 1
    return float(torch.special.gammaincc(f64(len(expected) - 1) / 2, statistic / 2))


def test_every_control_satisfies_some_sentences_and_not_all():
    share = SATISFIED.double().mean(1)
    assert bool(((share > 0) & (share < 1)).all())


def test_estimate_under_every_control_is_the_mean_given_that_it_is_satisfied():
    """E[x0 | x_t, satisfied] over all sentences written out, each control at another level."""
    words = oracle(1)
    level = flow_level(*torch.linspace(0.2, 0.9, len(ASKED)).tolist())
    good = words.words.encode(ROWS[SATISFIED.int().argmax(1)]).double()
    x_t = level.widen(3).alpha * good + level.widen(3).sigma * normals(len(ASKED), L, D)
    each = words.output(x_t, level).log_softmax(-1)[:, torch.arange(L), ROWS].sum(-1)
    weights = each.masked_fill(~SATISFIED, -torch.inf).softmax(-1)
    expected = torch.einsum("br,rld->bld", weights, words.words.encode(ROWS).double())
    got = controlled(words, all_automata(1))(x_t, level)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)


@pytest.fixture(scope="module")
def of_independent_words() -> Tensor:
    """Rows (controls, N, L) as the text panel draws them."""
    words, automata = oracle(1), all_automata(N)
    x0 = draw(words, controlled(words, automata), len(automata), STEPS)
    return nearest_accepted(words, x0.float(), automata).unflatten(0, (-1, N))


@pytest.mark.parametrize("control", range(len(ASKED)), ids=NAMES)
def test_controlled_independent_words_follow_the_exact_conditional(
    of_independent_words: Tensor, control: int
):
    counts = counts_of(of_independent_words[control])
    assert counts.sum() == counts[SATISFIED[control]].sum() == N
    assert p_value(counts, law(oracle(1)).sum(0) * SATISFIED[control]) > RARE


@pytest.fixture(scope="module")
def of_dependent_words() -> Tensor:
    """Rows (controls, N, L) under the exact p_t(satisfied | x_t), which need not end satisfied."""
    words, automata = oracle(2), all_automata(N)
    denoise = classifier(words.estimate, words.accepted(automata))
    x0 = draw(words, denoise, len(automata), STEPS)
    return words.words.decode(x0).unflatten(0, (-1, N))


@pytest.mark.parametrize("control", range(len(ASKED)), ids=NAMES)
def test_dependent_words_guided_by_the_exact_classifier_follow_the_exact_conditional(
    of_dependent_words: Tensor, control: int
):
    counts = counts_of(of_dependent_words[control])
    assert counts[SATISFIED[control]].sum() == N
    assert p_value(counts, law(oracle(2)).sum(0) * SATISFIED[control]) > RARE


# Tone: a classifier of noisy words.


def of_both(words: Topics, topic: int, automata: Automata) -> LogProb:
    """log p_t(topic and accepted | x_t)."""
    alone = Topics(words.words, f64(1.0), words.p[topic : topic + 1]).accepted(automata)
    tone = words.of_topic(topic)
    return lambda x_t, level, none: tone(x_t, level, none) + alone(x_t, level, none)


def test_a_tone_and_its_negation_follow_the_exact_conditional():
    words, n = topics(2), 2000
    tone = words.of_topic(0)

    def not_tone(x_t: Tensor, level: Level, condition: Tensor | None) -> Tensor:
        return log_not(tone(x_t, level, condition))

    for log_prob, exact in ((tone, words.law()[0]), (not_tone, words.law()[1])):
        x0 = draw(words, classifier(words.estimate, log_prob), n, STEPS)
        assert p_value(counted(words, words.words.decode(x0)), exact) > RARE


def test_a_tone_with_other_controls_follows_the_exact_conditional():
    words, n = oracle(2), 1000
    control = NAMES.index("says=colour:red, avoids=red, length=2-4, suffix=shines")
    automata = all_automata(n)[control * n : (control + 1) * n]
    x0 = draw(words, classifier(words.estimate, of_both(words, 1, automata)), n, STEPS)
    counts = counts_of(words.words.decode(x0))
    assert counts[SATISFIED[control]].sum() == n
    assert p_value(counts, law(words)[1] * SATISFIED[control]) > RARE


# What is not exact: how far from the exact conditional, in total variation.


def distances(tone: bool) -> dict[str, float]:
    """Of 2,000 sentences by method, and of as many exact samples."""
    rows = [
        measured(topics(2), 2000, 100, method, tone)
        for method in METHODS
        if not (tone and method.words)
    ]
    return {row["method"]: row["distance"] for row in rows} | {"": rows[0]["distance_exact"]}


EXACT = ("", "exact classifier (Alg. 2)", "exact classifier (Alg. 1)")
SIGNS, SLOPES = "Diffusion-LM's 3 updates of 0.1, signs", "the same along the gradient"


@pytest.mark.parametrize(
    ("tone", "sampling", "through", "slopes", "signs"),
    [(False, 0.095, 0.23, 0.28, 0.56), (True, 0.045, 0.115, 0.18, 0.32)],
)
def test_updates_and_gradients_through_the_estimate_are_biased_where_exact_guidance_is_not(
    tone: bool, sampling: float, through: float, slopes: float, signs: float
):
    """The rows of docs/results/guidance.md, from half as many samples."""
    found = distances(tone)
    assert all(found[name] < sampling for name in EXACT)
    biased = [found[name] for name in ("gradient through x0_hat", SLOPES, SIGNS)]
    assert biased == pytest.approx([through, slopes, signs], abs=0.02)


def test_a_models_own_laws_of_words_are_exact_for_independent_ones_only():
    """p(accepted | x_t) taken as if words were independent given x_t, against the exact one."""
    level, automata = flow_level(0.6, 0.8, 0.9), Automata.of([holds(ASKED_WORD)] * 3)
    for many, same in ((1, True), (2, False)):
        words = topics(many)
        x_t = normals(3, *words.words.latent_shape)
        chance = words.accepted(automata)(x_t, level, None)
        own = log_accepted(words.output(x_t, level).log_softmax(-1), automata)
        assert torch.allclose(own, chance, atol=1e-9) == same
        assert same or bool((own > chance + 0.01).all())  # words of a topic come together
