"""What is known of a run's words: of the scene world everything, of other text what tagged
sentences teach.

A target may only be guided by what its judge does not know. Tagged sentences are therefore split in
two halves by a hash of their words. A target is guided by the lexicon and the phrases of its own
half, which are counts, and its candidates are read by a tagger and a parser fitted to that half; it
is judged by those fitted to the other half, which have not seen it.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Protocol, TypeVar

from shared import scene
from shared.errors import ConfigError
from shared.tokenizer import Tokenizer
from text.control.analysis import Analysis, occurs, of_reading
from text.control.lexicon import scene_phrases, scene_tags
from text.control.parser import Parser, fit_parser
from text.control.spans import Phrases, Span, symbol
from text.control.tagger import Tagger, fit_tagger, lexicon
from text.control.targets import Tagged, Target, read_tagged
from text.control.vocabulary import Vocabulary
from text.english import english
from text.reader import analyse
from text.teller import tell

TAGGED = frozenset(["pos", "span", "pattern"])  # controls that tagged sentences may be needed for
LEAST = 0.5  # the least share of a word's tags that the guide takes for one of its tags
EXAMPLES = 2000  # sentences of the scene world that phrases are learned from
EXAMPLES_SEED = 1
T = TypeVar("T")


class World(Protocol):
    """What guides a target, and what judges its sentences."""

    exact: ClassVar[bool]  # whether the judge also knows what is no sentence

    def vocabulary(self, target: Target) -> Vocabulary: ...

    def analyse(self, sentences: Sequence[str], targets: Sequence[Target]) -> list[Analysis | None]:
        """Sentences as the judge of each one's target reads them; None for what is no sentence of
        this world."""
        ...

    def promise(self, sentences: Sequence[str], targets: Sequence[Target]) -> list[float]:
        """How much of its target each sentence satisfies, in [0, 1], as what guides the target
        reads it, which knows nothing of the judge; in the scene world both know the grammar."""
        ...

    def about(self, asked: Set[str]) -> dict[str, Any]:
        """What is known of the judge of the controls of these names: how often it is right on the
        sentences of each half."""
        ...


def find_world(name: str, tokenizer: Tokenizer, tagged: Path | None) -> World:
    """Of data.name = `name`. DataError for a folder of tagged sentences without any."""
    if name == "scene":
        if tagged is not None:
            raise ConfigError("tagged: the scene world's parts of speech are known; leave it out")
        return SceneWorld(tokenizer)
    return RealText(tokenizer, () if tagged is None else tuple(read_tagged(tagged)))


@dataclass(frozen=True)
class SceneWorld:
    """The scene world, whose grammar is exact."""

    tokenizer: Tokenizer
    exact: ClassVar[bool] = True

    def vocabulary(self, target: Target) -> Vocabulary:
        return Vocabulary(
            self.tokenizer, scene_tags(), scene_phrases, scene_phrase_rows(), english("some")
        )

    def analyse(self, sentences: Sequence[str], targets: Sequence[Target]) -> list[Analysis | None]:
        readings = map(analyse, sentences)
        return [None if reading is None else of_reading(reading) for reading in readings]

    def promise(self, sentences: Sequence[str], targets: Sequence[Target]) -> list[float]:
        rows = zip(sentences, self.analyse(sentences, targets), targets, strict=True)
        return [
            fmean(float(one.success(said, reading)) for one in target.controls)
            for said, reading, target in rows
        ]

    def about(self, asked: Set[str]) -> dict[str, Any]:
        return {"judge": "exact parses of the scene world's grammar"}


@cache
def scene_phrase_rows() -> Phrases:
    """What the scene world's phrases are made of, from sentences of its training stream."""
    examples = []
    for index in range(EXAMPLES):
        told = tell(scene.sample(EXAMPLES_SEED, index), EXAMPLES_SEED, index)
        reading = analyse(told.sentence)
        assert reading is not None
        found = of_reading(reading)
        symbols = [symbol(w, t) for w, t in zip(told.sentence.split(), told.tags, strict=True)]
        examples += [(symbols, span) for span in found.spans or ()]
    return Phrases.learn(examples)


@dataclass(frozen=True)
class RealText:
    """Any text; with tagged sentences also their parts of speech and phrases."""

    tokenizer: Tokenizer
    tagged: tuple[Tagged, ...]
    exact: ClassVar[bool] = False

    def vocabulary(self, target: Target) -> Vocabulary:
        if not self.tagged:
            return Vocabulary(self.tokenizer, facts=_value)
        return self._guides[half(target.words)]

    def analyse(self, sentences: Sequence[str], targets: Sequence[Target]) -> list[Analysis | None]:
        if not self.tagged:
            return [Analysis(partial(occurs, said)) for said in sentences]
        return self._each(sentences, targets, lambda number: self._readers[1 - number].analyses)

    def promise(self, sentences: Sequence[str], targets: Sequence[Target]) -> list[float]:
        if not self.tagged:
            return [1.0] * len(sentences)  # the automata accept nothing else
        return self._each(sentences, targets, lambda number: self._readers[number].promises)

    def _each(
        self,
        sentences: Sequence[str],
        targets: Sequence[Target],
        work: Callable[[int], Callable[[Sequence[str], Sequence[Target]], Sequence[T]]],
    ) -> list[T]:
        """What `work` of the half of each target makes of its sentence."""
        found: dict[int, T] = {}
        for number in (0, 1):
            rows = [i for i, target in enumerate(targets) if half(target.words) == number]
            if rows:
                made = work(number)([sentences[i] for i in rows], [targets[i] for i in rows])
                found |= dict(zip(rows, made, strict=True))
        return [found[i] for i in range(len(sentences))]

    def about(self, asked: Set[str]) -> dict[str, Any]:
        if not self.tagged or asked.isdisjoint(TAGGED):
            return {"judge": "the words themselves"}
        folds: list[dict[str, Any]] = []
        for number, judge in enumerate(self._readers[::-1]):
            own = [one for one in self.tagged if half(one.words) == number]
            fold = {"judged": len(own), "learned_from": len(self.tagged) - len(own)}
            fold |= {"tags_right": judge.tagger.accuracy(own)}
            if "span" in asked and judge.parser is not None:
                read = [Tagged(s.words, judge.tagger.tag(s.words), s.spans) for s in own]
                fold |= judge.parser.recovery(read)
            folds.append(fold)
        return {
            "judge": "tagger and parser learned from the half of the tagged sentences that neither "
            "holds the target nor guided it",
            "halves": folds,
        }

    @cached_property
    def _guides(self) -> tuple[Vocabulary, Vocabulary]:
        return (self._guide(0), self._guide(1))

    def _guide(self, number: int) -> Vocabulary:
        own = [one for one in self.tagged if half(one.words) == number]
        examples = [
            ([*map(symbol, one.words, one.tags)], span) for one in own for span in one.spans
        ]
        phrases = Phrases.learn(examples) if examples else None
        return Vocabulary(self.tokenizer, lexicon(own, LEAST), _value, phrases)

    @cached_property
    def _readers(self) -> tuple["_Reader", "_Reader"]:
        """Learned from each half."""
        return (self._reader(0), self._reader(1))

    def _reader(self, number: int) -> "_Reader":
        return _Reader(tuple(one for one in self.tagged if half(one.words) == number))


def asked(targets: Iterable[Target]) -> set[str]:
    """The names of all controls in targets."""
    return {control.name for target in targets for control in target.controls}


@dataclass(frozen=True)
class _Reader:
    """Fitted when it is asked."""

    sentences: tuple[Tagged, ...]

    @cached_property
    def tagger(self) -> Tagger:
        return fit_tagger(self.sentences)

    @cached_property
    def parser(self) -> Parser | None:
        parsed = [one for one in self.sentences if one.spans]
        return fit_parser(parsed) if parsed else None

    def analyses(self, sentences: Sequence[str], targets: Sequence[Target]) -> list[Analysis]:
        """With constituents where a target asks for one."""
        read = self._read(sentences)
        asked = [i for i, target in enumerate(targets) if target.spans]
        parses: dict[int, frozenset[Span]] = {}
        if asked and self.parser is not None:
            found = self.parser.spans([read[i] for i in asked])
            parses = dict(zip(asked, found, strict=True))
        return [
            Analysis(partial(occurs, said), read[i][1], parses.get(i))
            for i, said in enumerate(sentences)
        ]

    def promises(self, sentences: Sequence[str], targets: Sequence[Target]) -> list[float]:
        """The mean over the controls of each target: of a constituent how probable it is, of all
        else whether it is satisfied."""
        read = self._read(sentences)
        asked = [target.spans for target in targets]
        chances = [[0.0 for _ in own] for own in asked]
        if any(asked) and self.parser is not None:
            chances = self.parser.chances(read, asked)
        found: list[float] = []
        for i, (said, target) in enumerate(zip(sentences, targets, strict=True)):
            analysis = Analysis(partial(occurs, said), read[i][1])
            others = (one for one in target.controls if one.name != "span")
            found.append(fmean([*chances[i], *(float(o.success(said, analysis)) for o in others)]))
        return found

    def _read(self, sentences: Sequence[str]) -> list[tuple[Sequence[str], Sequence[str]]]:
        """Words and tags."""
        words = [said.split() for said in sentences]
        return [(row, self.tagger.tag(row)) for row in words]


def half(words: Sequence[str]) -> int:
    """0 or 1, by a hash of the words."""
    return hashlib.sha256(" ".join(words).encode()).digest()[0] % 2


def _value(fact: str) -> Sequence[str]:
    """`field: value` -> the value, the only way of saying it that is known."""
    value = fact.partition(":")[2].strip()
    if not value:
        raise ConfigError(f"says = {fact!r}: expected a field and its value, name: The Vaults")
    return [value]
