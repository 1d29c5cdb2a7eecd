"""The judge of constituents: a small grammar of English over tags, weighted by what it learns from.

RULES say which constituents there may be; how likely each rule is, is fitted so that the phrases
known of some sentences are in their trees: the gradient of log p(phrase | sentence), a log-linear
grammar whose trees are hidden but for one phrase each (Finkel et al. 2008; partly bracketed
sentences: Pereira & Schabes 1992). The most likely tree is the parse. A parse ends at a full stop,
and the next begins; all of them together are an S, as the parses of Li et al. 2022 have it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from text.control.cache import Fitted, fitted
from text.control.inside import BEST, IMPOSSIBLE, SUM, Grammar, inside, read_grammar
from text.control.spans import STOPS, Span, bare, held
from text.control.targets import Tagged

RULES = """
TOP: S | FRAG
FRAG: _any | _any FRAG
_any: NP | VP | PP | ADJP | ADVP | SBAR | _s | STOP | COMMA | CC | INTJ | VG | X
S: _s | _s STOP
_s: NP VP | NP ADVP VP | NP _pause VP | _lead _s | VP | S CC S | S COMMA S | S COMMA CC S | _s
    ADVP | _s PP | CC _s | _s COMMA VG | _s COMMA PP
_lead: PP | PP COMMA | ADVP | ADVP COMMA | VG | VG COMMA | ADJP COMMA | INTJ COMMA | NP COMMA |
    SBAR COMMA
_pause: COMMA
NP: SCORE _out | _nbar | DET _nbar | PRON | EX | DET | NUM | _pron _nbar | QP | QP _nbar | DET QP
    _nbar | RATIO _nbar | DET RATIO _nbar | _money | NP _poss
NP: NP PP | NP VG | NP SBAR | NP ADJP | NP CC NP | NP COMMA NP | NP COMMA CC NP | NP _aside |
    NP _aside COMMA | NP PAREN | NP _poss _nbar
_aside: COMMA PP | COMMA VG | COMMA SBAR | COMMA NP
SCORE: NUM
_out: OUT PP
RATIO: NUM OUT ADP NUM
_pron: PRON
_poss: PART
_money: SYM NUM | SYM NUM PUNC NUM | SYM NUM PUNC SYM NUM | SYM NUM ADP NUM | SYM NUM TO NUM
_nbar: NOUN | PROPN | _mod _nbar | ADJ | _nbar CC _nbar
_mod: _one | _one COMMA
_one: ADJ | NOUN | PROPN | NUM | ADJP | NML | VBG | NUM PUNC
NML: PROPN PROPN | NOUN NOUN | ADJ NOUN | NOUN PUNC NOUN | PROPN NML
QP: NUM SC ADP NUM | ADV ADP NUM | ADJ ADP NUM | ADJ ADP _money | ADJ SC
    _money | ADJ SC NUM | ADP _money | NUM CC NUM | ADJ NUM | ADV NUM | NUM PUNC NUM
PP: ADP NP | ADP PP | ADP VG | ADP ADJP | ADP QP | ADVP ADP NP | SC NP | SC VG | PP CC PP | PP
    COMMA PP
ADVP: ADV | ADV ADV | ADV PP | ADVP CC ADVP | ADVP PP | ADJ PP
ADJP: ADJ | ADV ADJ | NOUN ADJ | NOUN PUNC ADJ | ADV ADJP | NOT ADJP | ADJ PUNC ADJ | ADJ VBN |
    ADV VBN | ADV _placed | NUM NOUN | NUM PUNC NOUN | ADJP CC ADJP | ADJP COMMA ADJP | ADJP COMMA
    CC ADJP | ADJP PP | ADJ NOUN | NOUN VBN | VBN | ADJ PUNC VBN | ADV PUNC VBN | ADJ PUNC NOUN |
    NOUN PUNC VBN | _non NOUN ADJ | _non PUNC NOUN ADJ | _non NOUN PUNC ADJ | ADJP _toinf
_non: NOT | ADJ | NOUN | X | ADV
VG: VBG _comps | VBN _comps | _placed _comps | VBG | VBN | _placed | ADVP VG | VG CC VG |
    AUX _comps | NOT VG | NAMED NP
_placed: PLACED
VP: _v | _v _comps | ADVP VP | VP CC VP | VP COMMA VP | VP COMMA CC VP | VP CC VG | _toinf
_v: V | AUX | _v NOT | AUX _v | VBN | VBG | _placed | NAMED | _v ADV
_toinf: TO VP
_comps: _comp | _comp _comps
_comp: NP | PP | ADJP | ADVP | VG | SBAR | S | _toinf | COMMA PP
SBAR: WHNP VP | WHNP _s | SC _s | WHADV _s | WHNP ADVP VP
WHNP: WH | ADP WH
WHADV: WHERE
PAREN: PUNC NP PUNC
"""
STEPS, RATE, PRIOR, PENALTY = 16, 0.3, -1.0, 7e-4  # of the fit, and the log-weight it starts from
FRAGMENTS = -5.0  # the same of rules for what is no sentence
FORCED = 25.0  # nats that a known phrase is worth: log p(phrase) = log Z(worth) - worth - log Z
UNKNOWN = -6.0  # log-weight of a word that is taken for nothing that the rules know
VERSION = 2  # of what parsers are
BATCH = 8  # what the charts of long clauses leave in the cache of a core
REPORTED = {
    **{
        label: label
        for label in ("NP", "VP", "S", "PP", "ADJP", "ADVP", "QP", "SBAR", "WHNP", "NML")
    },
    "SCORE": "NP",  # 5, in 5 out of 5
    "RATIO": "QP",  # 5 out of 5, before a noun
    "VG": "VP",  # a participle and what belongs to it
}
_TERMS = {"CCONJ": "CC", "SCONJ": "SC", "PUNCT": "PUNC"}
_WORDS = {
    "that": "WH DET", "which": "WH", "who": "WH", "whose": "WH", "what": "WH", "there": "EX",
    "where": "WHERE", "when": "WHERE", "to": "TO", "not": "NOT", "'s": "PART", "'": "PART",
}  # fmt: skip
_WORD_TAGS = ("PRON", "SCONJ", "DET", "PART", "ADV")  # tags under which these are those
_ALWAYS = {
    ",": "COMMA", "not": "NOT", "out": "OUT", "also": "ADV",
    **dict.fromkeys(("located", "situated"), "PLACED"),  # what follows is theirs
    **dict.fromkeys(("called", "named"), "NAMED"),
    **dict.fromkeys(("at", "beside", "by", "for", "from", "in", "near", "of", "with"), "ADP"),
    **dict.fromkeys(("he", "it", "she", "they", "we", "you"), "PRON"),
}  # fmt: skip


@dataclass(frozen=True)
class Parser:
    """log-weights (R,) of the rules."""

    weights: Tensor

    def spans(
        self, sentences: Sequence[tuple[Sequence[str], Sequence[str]]]
    ) -> list[frozenset[Span]]:
        """The constituents of sentences, given as words and tags."""
        found: list[set[Span]] = [set() for _ in sentences]
        for some in _parts(sentences):
            words, lengths, spans = _chart([part[2:] for part in some])
            spans.requires_grad_()
            best = inside(_grammar(), self.weights, words, lengths, spans, BEST)
            (used,) = torch.autograd.grad(best.sum(), spans)
            symbols = _grammar().symbols
            for which, left, right, symbol in (used > 0.5).nonzero().tolist():
                row, start = some[which][:2]
                if symbols[symbol] in REPORTED:
                    found[row].add((start + left, start + right, REPORTED[symbols[symbol]]))
        for row, (words, _) in enumerate(sentences):
            whole = (0, len(words) - 1, "S")
            if _is_text(words, whole):
                found[row].add(whole)
        return [frozenset(one) for one in found]

    def chances(
        self,
        sentences: Sequence[tuple[Sequence[str], Sequence[str]]],
        asked: Sequence[Sequence[Span]],
    ) -> list[list[float]]:
        """How probable it is that a tree of each sentence holds each of the constituents that are
        asked of it: the share of its trees by weight, not of the best one alone."""
        found = [
            [float(_is_text(words, one)) for one in own]
            for (words, _), own in zip(sentences, asked, strict=True)
        ]
        for some in _parts(sentences):
            words, lengths, spans = _chart([part[2:] for part in some])
            spans = spans.double().requires_grad_()
            z = inside(_grammar(), self.weights.double(), words.double(), lengths, spans, SUM)
            (expected,) = torch.autograd.grad(z.log().sum(), spans)
            for which, (row, start, own, _) in enumerate(some):
                for i, (left, right, label) in enumerate(asked[row]):
                    if start <= left and right < start + len(own):
                        there = expected[which, left - start, right - start, _reported(label)]
                        found[row][i] = max(found[row][i], min(1.0, float(there.sum())))
        return found

    def recovery(self, sentences: Iterable[Tagged]) -> dict[str, float]:
        """Of the phrases that are known of these sentences, the share that the parses hold."""
        known = [one for one in sentences if one.spans]
        if not known:
            return {}
        parses = self.spans([(one.words, one.tags) for one in known])
        pairs = [
            (span, parse) for one, parse in zip(known, parses, strict=True) for span in one.spans
        ]
        right = sum(held(span, parse) for span, parse in pairs)
        return {"spans": len(pairs), "spans_found": right / len(pairs)}


def fit_parser(sentences: Sequence[Tagged]) -> Parser:
    """A parser in whose trees of these sentences their phrases are: from the cache, or now."""
    settings = [VERSION, " ".join(RULES.split()), STEPS, RATE, PRIOR, FRAGMENTS, PENALTY]
    stated = [settings, [(s.words, s.tags, s.spans) for s in sentences]]
    _, held = fitted("parser", stated, lambda: _fit(sentences))
    return Parser(torch.from_numpy(held["weights"]))


def _fit(sentences: Sequence[Tagged]) -> Fitted:
    parts = [
        (one.words[a:b], one.tags[a:b], (left - a, right - a, label))
        for one in sentences
        for left, right, label in one.spans
        for a, b in _clauses(one.words)
        if a <= left and right < b
    ]
    batches = [_examples(some) for some in _batches(parts, key=lambda part: len(part[0]))]
    start = start_weights().double()
    weights = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for words, lengths, spans in batches:
            free = inside(_grammar(), weights, words, lengths, torch.zeros_like(spans), SUM)
            worth = inside(_grammar(), weights, words, lengths, spans, SUM)
            nats = free.log() - worth.log() + FORCED
            (nats.sum() / len(parts)).backward()
        (PENALTY * (weights - start).square().sum()).backward()
        optimizer.step()
    return {}, {"weights": weights.detach().numpy().astype(np.float32)}


def start_weights() -> Tensor:
    """(R,): the log-weights before any example: sentences are preferred to fragments."""
    weights = torch.full((_grammar().rules,), PRIOR)
    for number, rule in enumerate((*_grammar().binary, *_grammar().unary)):
        if "FRAG" in (_grammar().symbols[symbol] for symbol in rule):
            weights[number] = FRAGMENTS
    return weights


@cache
def _grammar() -> Grammar:
    return read_grammar(RULES, "TOP")


def _clauses(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """First word and the one after the last, of what ends at each full stop."""
    start = 0
    for i, word in enumerate(words, 1):
        if word in STOPS or i == len(words):
            yield start, i
            start = i


def _is_text(words: Sequence[str], span: Span) -> bool:
    """Whether it is the S of several sentences together."""
    return (*span[:2], bare(span[2])) == (0, len(words) - 1, "S") and len([*_clauses(words)]) > 1


def _reported(label: str) -> list[int]:
    """The symbols that are reported as a label."""
    symbols = _grammar().symbols
    return [symbols.index(one) for one, reported in REPORTED.items() if reported == bare(label)]


def _parts(
    sentences: Sequence[tuple[Sequence[str], Sequence[str]]],
) -> Iterator[list[tuple[int, int, Sequence[str], Sequence[str]]]]:
    """The clauses of sentences in batches: row, first word, words, tags."""
    parts = [
        (row, start, words[start:end], tags[start:end])
        for row, (words, tags) in enumerate(sentences)
        for start, end in _clauses(words)
    ]
    return _batches(parts, key=lambda part: len(part[2]))


def _terms(word: str, tag: str) -> Sequence[str]:
    """What a word is in RULES."""
    lower = word.lower()
    if word in STOPS:
        return ["STOP"]
    if lower in _ALWAYS:
        return [_ALWAYS[lower]]
    if lower in _WORDS and tag in _WORD_TAGS:
        return _WORDS[lower].split()
    if tag == "VERB":
        return ["VBG"] if lower.endswith("ing") else ["VBN", "V"] if lower.endswith("ed") else ["V"]
    return _TERMS.get(tag, "NOT" if tag == "PART" else tag).split()


def _chart(sentences: Sequence[Sequence[Any]]) -> tuple[Tensor, Tensor, Tensor]:
    """What `inside` takes of sentences, each words and tags and perhaps more: words (B, n, N),
    lengths (B,), spans (B, n, n, N), 0."""
    symbols = {symbol: i for i, symbol in enumerate(_grammar().symbols)}
    lengths = torch.tensor([len(one[0]) for one in sentences])
    B, n, N = len(sentences), int(lengths.max()), len(symbols)
    words = torch.full((B, n, N), IMPOSSIBLE)
    words[..., symbols["X"]] = UNKNOWN
    for row, one in enumerate(sentences):
        for place, (word, tag) in enumerate(zip(one[0], one[1], strict=True)):
            for term in _terms(word, tag):
                if term in symbols:
                    words[row, place, symbols[term]] = 0.0
    return words, lengths, torch.zeros(B, n, n, N)


def _examples(parts: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
    """The chart of parts, in float64, with FORCED at each known phrase."""
    words, lengths, spans = _chart(parts)
    for row, (_, _, (left, right, label)) in enumerate(parts):
        spans[row, left, right, _reported(label)] = FORCED
    return words.double(), lengths, spans.double()


def _batches(parts: Sequence[Any], key: Callable[[Any], int]) -> Iterator[list[Any]]:
    """The parts by rising length, BATCH at a time."""
    ordered = sorted(parts, key=key)
    for start in range(0, len(ordered), BATCH):
        yield ordered[start : start + BATCH]
