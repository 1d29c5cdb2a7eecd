"""Grammars in charts against all derivations written out, and what a few phrases teach."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from text.control import parser
from text.control.inside import BEST, IMPOSSIBLE, SUM, Grammar, inside, read_grammar
from text.control.targets import Tagged

GRAMMAR = read_grammar("S: A S | S B A | C\nA: x | B\nB: y | x\nC: A | x", "S")


def charts(grammar: Grammar, *rows: str) -> tuple[Tensor, Tensor, Tensor]:
    """words, lengths, spans of rows of words that are symbols themselves."""
    B, n, N = len(rows), max(map(len, rows)), len(grammar.symbols)
    words = torch.full((B, n, N), -torch.inf, dtype=torch.float64)
    for row, said in enumerate(rows):
        for place, word in enumerate(said):
            words[row, place, grammar.symbols.index(word)] = 0.0
    return words, torch.tensor([len(row) for row in rows]), torch.zeros(B, n, n, N).double()


def derivations(grammar: Grammar, symbol: int, words: str, at: int = 0):
    """All derivations of a symbol: (rules, labelled spans), by plain recursion."""
    if words == grammar.symbols[symbol]:
        yield [], [(at, at, symbol)]
    for number, rule in enumerate((*grammar.binary, *grammar.unary)):
        if rule[0] != symbol:
            continue
        here = (at, at + len(words) - 1, symbol)
        if len(rule) == 2:
            for rules, spans in derivations(grammar, rule[1], words, at):
                yield [number, *rules], [here, *spans]
            continue
        for k in range(1, len(words)):
            pairs = itertools.product(
                derivations(grammar, rule[1], words[:k], at),
                list(derivations(grammar, rule[2], words[k:], at + k)),
            )
            for (r, s), (r2, s2) in pairs:
                yield [number, *r, *r2], [here, *s, *s2]


ROWS = ("x", "yx", "xyxx", "yxxyx")


def log_weights() -> Tensor:
    seeded = torch.Generator().manual_seed(1)
    return torch.randn(GRAMMAR.rules, generator=seeded, dtype=torch.float64)


def test_sum_over_all_derivations_and_its_gradient_the_expected_rules_and_spans():
    words, lengths, spans = charts(GRAMMAR, *ROWS)
    weights = log_weights().requires_grad_()
    z = inside(GRAMMAR, weights, words, lengths, spans.requires_grad_(), SUM)
    rules, marked = torch.autograd.grad(z.log().sum(), (weights, spans))
    counts = torch.zeros(GRAMMAR.rules, dtype=torch.float64)
    for row, said in enumerate(ROWS):
        every = list(derivations(GRAMMAR, GRAMMAR.top, said))
        assert len(every) > (row > 0)
        p = torch.stack([weights.detach()[used].sum().exp() for used, _ in every])
        assert z[row].item() == pytest.approx(p.sum().item(), rel=1e-12)
        expected = torch.zeros_like(spans[row])
        for probability, (used, held) in zip((p / p.sum()).tolist(), every, strict=True):
            for rule in used:
                counts[rule] += probability
            for place in held:
                expected[place] += probability
        torch.testing.assert_close(marked[row], expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(rules, counts)


def test_best_derivation_is_the_best_of_all():
    words, lengths, spans = charts(GRAMMAR, *ROWS)
    words = words.clamp(min=IMPOSSIBLE)
    weights = log_weights()
    best = inside(GRAMMAR, weights, words, lengths, spans.requires_grad_(), BEST)
    (used,) = torch.autograd.grad(best.sum(), spans)
    for row, said in enumerate(ROWS):
        every = derivations(GRAMMAR, GRAMMAR.top, said)
        score, held = max((weights[rules].sum().item(), held) for rules, held in every)
        assert best[row].item() == pytest.approx(score, rel=1e-12)
        assert {tuple(place) for place in used[row].nonzero().tolist()} == set(held)


def test_catalan_numbers():
    """n words in a row have C(n - 1) binary trees."""
    grammar = read_grammar("S: S S | x", "S")
    words, lengths, spans = charts(grammar, *("x" * n for n in range(1, 8)))
    z = inside(grammar, torch.zeros(grammar.rules).double(), words, lengths, spans, SUM)
    assert z.tolist() == pytest.approx([math.comb(2 * n, n) / (n + 1) for n in range(7)])


def test_longer_rules_are_cut_in_two_and_circles_refused():
    grammar = read_grammar("S: a b c d | a c b", "S")
    words, lengths, spans = charts(grammar, "abcd", "acb", "abc")
    z = inside(grammar, torch.zeros(grammar.rules).double(), words, lengths, spans, SUM)
    assert z.tolist() == [1.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="go round in a circle"):
        read_grammar("S: A\nA: B\nB: A", "S")


def tagged(said: str, *spans: tuple[int, int, str]) -> Tagged:
    """word/TAG ... -> a sentence."""
    words, tags = zip(*(pair.rsplit("/", 1) for pair in said.split()), strict=True)
    return Tagged(words, tags, spans)


SEES = "The/DET man/NOUN serves/VERB a/DET star/NOUN near/ADP the/DET moon/NOUN ./PUNCT"


@pytest.mark.parametrize("span", [(3, 4, "NP"), (3, 7, "NP"), (5, 7, "PP")])
def test_fitting_puts_a_known_phrase_in_the_tree(monkeypatch, tmp_path: Path, span):
    """[a star near the moon] is one phrase, or two, as the examples say."""
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    monkeypatch.setattr(parser, "STEPS", 12)
    example = tagged(SEES, span)
    fitted = parser.fit_parser([example])
    assert fitted.recovery([example]) == {"spans": 1, "spans_found": 1.0}
    again = parser.fit_parser([example])
    assert torch.equal(again.weights, fitted.weights)
    found = fitted.spans([(example.words, example.tags), (("Hello",), ("INTJ",))])
    assert span in found[0]
    assert (0, 8, "S") in found[0]


def test_a_parse_ends_at_a_full_stop():
    plain = parser.Parser(parser.start_weights())
    one = tagged("It/PRON is/AUX red/ADJ ./PUNCT")
    both = tagged("It/PRON is/AUX red/ADJ ./PUNCT It/PRON is/AUX red/ADJ ./PUNCT")
    alone, together = plain.spans([(s.words, s.tags) for s in (one, both)])
    second = {(a + 4, b + 4, label) for a, b, label in alone}
    assert together == alone | second | {(0, 7, "S")}
    assert (0, 3, "S") in alone


def test_several_sentences_together_are_an_s():
    plain = parser.Parser(parser.start_weights())
    both = tagged("It/PRON is/AUX red/ADJ ./PUNCT It/PRON is/AUX red/ADJ")
    [found] = plain.spans([(both.words, both.tags)])
    assert {(0, 3, "S"), (0, 6, "S")} <= found


def test_the_chance_of_a_constituent_is_the_share_of_the_trees_that_hold_it():
    """As much as the sum over all trees grows when one constituent is worth more."""
    seeded = torch.Generator().manual_seed(3)
    weights = parser.start_weights() + torch.randn(len(parser.start_weights()), generator=seeded)
    one = tagged(SEES)
    asked = [(3, 4, "NP"), (3, 7, "NP"), (5, 7, "S::PP"), (2, 7, "VP"), (4, 5, "NP")]
    [chances] = parser.Parser(weights).chances([(one.words, one.tags)], [asked])
    worth = math.exp(parser.FORCED) - 1
    for span, chance in zip(asked, chances, strict=True):
        words, lengths, spans = parser._examples([(one.words, one.tags, span)])
        z, z_free = (
            inside(parser._grammar(), weights.double(), words, lengths, each, SUM).item()
            for each in (spans, torch.zeros_like(spans))
        )
        assert chance == pytest.approx((z / z_free - 1) / worth, abs=1e-9)
    assert 0.1 < chances[0] <= 1
    assert chances[4] == 0


def test_chances_are_told_of_clauses_and_of_the_whole_text():
    plain = parser.Parser(parser.start_weights())
    one = tagged("Hello/INTJ ./PUNCT It/PRON is/AUX red/ADJ ./PUNCT It/PRON is/AUX red/ADJ ./PUNCT")
    alone = tagged("It/PRON is/AUX red/ADJ ./PUNCT")
    asked = [(6, 6, "NP"), (6, 9, "S"), (0, 9, "S"), (2, 9, "S"), (3, 6, "VP")]
    rows = [(one.words, one.tags), (alone.words, alone.tags)]
    first, second = plain.chances(rows, [asked, [(0, 0, "NP"), (0, 3, "S")]])
    assert first[:2] == pytest.approx(second)
    assert first[2:] == [1.0, 0.0, 0.0]
