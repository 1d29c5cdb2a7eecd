"""Slot error rate: do restaurant descriptions say what their meaning representation says?

    (missing + added + wrong) / slots of the meaning representations

in the manner of the E2E NLG challenge (Dusek, Novikova & Rieser 2020). A slot is said where a
pattern of its value is found in the sentence; wrong, where instead another value of its field is;
added, where the source lacks a field of which some value is found. Names of venues are looked for
as they are, and taken out of the sentence before the other fields ("Café Sicilia" is no café).
`eatType[restaurant]` is what any venue may be called, so it is never wrong or added.

Patterns are few, so they err; by how much is what the same rate says of the human references, which
has to stand beside every number: a rate cannot be believed below that one.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from text.parts import signs_apart

# Over lower-case sentences with blanks around signs: "£ 20 - 25", "5 / 5", "kid - friendly".
_CHILDREN = r"(famil|kid|child|youngster)"
_NOT = r"\b(no|not|n ' t|non|isn|aren|doesn|don|never|without|adults? only|un)\b"
_NO_CHILDREN = rf"{_NOT}.{{0,40}}{_CHILDREN}|{_CHILDREN}.{{0,25}}{_NOT}|adults? only"
_CHEAP = r"cheap|inexpensive|affordable|budget|low(er|ly)?( -)? (pric|cost)|low in price"
_MIDDLE = r"(moderate|average|reasonabl|mid|medium)\w*( -)? ?(range |ly )?(pric|cost|rang)|moderate"
_HIGH = (
    r"high(er|ly|end)?( -)? (end|pric|cost)|expensive|pricey|upscale|"
    r"(price|cost)\w* (range )?(is|are|in the|of)? ?(quite )?high|high range"
)
_BELOW = r"(less|under|below|lower|cheaper|up to)\D*(20|twenty)"
_ABOVE = r"(more|over|above|least|exceed\w*|greater|higher|from|start\w*|minimum)\D*(30|thirty)"
_RATED = r"(customer |guest )?(rat|review|scor|rank)"


def _rating(words: str) -> str:
    """Such a rating, before the word or up to two words behind it."""
    return rf"({words})\w*( -)? {_RATED}|{_RATED}\w* (\w+ )?(\w+ )?({words})"


def _stars(number: str, out_of: str = "(out of|/|of|stars?)") -> str:
    return rf"\b({number})( -)? {out_of}"


PATTERNS: dict[str, dict[str, str]] = {
    "eatType": {
        "pub": r"\bpubs?\b",
        "coffee shop": r"coffee( -)? ?(shop|house|place)|\bcaf[eé]s?\b|\bcoffee\b",
        "restaurant": r"\b(restaurants?|venue|place|eatery|diner|establishment)\b",
    },
    "food": {
        "English": r"\benglish\b|\bbritish\b",
        "Japanese": r"\bjapanese\b|\bsushi\b",
        "French": r"\bfrench\b|\bfrance\b",
        "Fast food": r"\bfast( -)? ?food|\bburgers?\b",
        "Italian": r"\b(italian|pasta|pizza|italy)\b",
        "Indian": r"\b(indian|curry|india)\b",
        "Chinese": r"\bchinese\b|\bchina\b",
    },
    "priceRange": {
        "cheap": _CHEAP,
        "less than £ 20": f"{_BELOW}|{_CHEAP}",
        "moderate": _MIDDLE,
        "£ 20 - 25": rf"20 ?(-|to|and|through|–)? ?£? ?25|{_MIDDLE}",
        "high": _HIGH,
        "more than £ 30": rf"{_ABOVE}|{_HIGH}|30 ?\+",
    },
    "customer rating": {
        "low": f"{_rating('low|poor|bad')}|{_stars('1|one', 'star')}",
        "average": f"{_rating('average')}|{_stars('3|three', 'star')}",
        "high": f"{_rating('high|excellent|great|good|top|well')}|{_stars('5|five', 'star')}",
        "1 out of 5": f"{_stars('1|one')}|{_rating('low|poor|bad')}",
        "3 out of 5": f"{_stars('3|three')}|{_rating('average')}",
        "5 out of 5": f"{_stars('5|five')}|{_rating('high|excellent|top')}",
    },
    "area": {
        "city centre": r"(city|town)( -)? ?(cent|area)|cent(re|er) of (the )?(city|town)|downtown|"
        r"in the (city|cent)",
        "riverside": r"\briver",
    },
    "familyFriendly": {
        "yes": rf"^(?!.*({_NO_CHILDREN})).*{_CHILDREN}",
        "no": rf"{_NO_CHILDREN}|\badults?\b|{_CHILDREN}\w*( -)? unfriendly",
    },
}
VENUES = ("name", "near")  # fields whose values are looked for as they are
_LOOSE = {("eatType", "restaurant")}


@dataclass(frozen=True)
class Slots:
    """Counts over some sentences: slots there should be, and the three kinds of error."""

    slots: int = 0
    missing: int = 0
    wrong: int = 0
    added: int = 0

    def __add__(self, other: "Slots") -> "Slots":
        return Slots(
            self.slots + other.slots,
            self.missing + other.missing,
            self.wrong + other.wrong,
            self.added + other.added,
        )

    @property
    def rate(self) -> float:
        """Errors per slot; 0 where there are no slots."""
        return (self.missing + self.wrong + self.added) / self.slots if self.slots else 0.0


def read_slots(source: str) -> dict[str, str] | None:
    """`name[Zizzi], food[Italian]`, with or without blanks around signs -> values by field. None
    for what is no meaning representation of E2E."""
    found = re.findall(r"\s*(\w[\w ]*?) ?\[ ?([^\[\]]*?) ?\] ?,?", source)
    slots = {field: signs_apart(value) for field, value in found}
    read = bool(slots) and all(
        field in VENUES or value in PATTERNS.get(field, {}) for field, value in slots.items()
    )
    return slots if read else None


def compute(
    predictions: Sequence[str], sources: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """The rate and its parts, of predictions and (`..._held_out`) of all references, each with its
    source. ValueError for a source that is no meaning representation."""
    slots = [read_slots(source) for source in sources]
    wrong = next((s for s, found in zip(sources, slots, strict=True) if found is None), None)
    if wrong is not None:
        raise ValueError(f"slots: {wrong!r} is no meaning representation")
    asked = [found or {} for found in slots]
    venues = {own[field] for own in asked for field in VENUES if field in own}
    pairs = list(zip(predictions, asked, strict=True))
    theirs = [(text, own) for own, all_ in zip(asked, references, strict=True) for text in all_]
    return {
        **_told(sum((count(text, own, venues) for text, own in pairs), Slots()), ""),
        **_told(sum((count(text, own, venues) for text, own in theirs), Slots()), "_held_out"),
    }


def count(text: str, slots: Mapping[str, str], venues: set[str]) -> Slots:
    """Errors of one sentence; `venues` are all names to look for."""
    named, values = _said(text, venues)
    missing = wrong = added = 0
    asked = [slots[field] for field in VENUES if field in slots]
    lost = sum(venue not in named for venue in asked)
    strange = len(_longest(named - set(asked)))
    wrong += min(lost, strange)
    missing += max(lost - strange, 0)
    added += max(strange - lost, 0)
    for field, found in values.items():
        others = {value for value in found if (field, value) not in _LOOSE}
        if field not in slots:
            added += bool(others)
        elif slots[field] not in found:
            wrong += bool(others)
            missing += not others
    return Slots(len(slots), missing, wrong, added)


def held(text: str, slots: Mapping[str, str], venues: set[str]) -> dict[str, bool]:
    """Whether a sentence says each of these fields as it should; `venues` as in `count`."""
    named, values = _said(text, venues)
    return {field: value in values.get(field, named) for field, value in slots.items()}


def _said(text: str, venues: set[str]) -> tuple[set[str], dict[str, set[str]]]:
    """The venues that are named, and of every other field the values that are found."""
    said = signs_apart(text).lower()
    named = {venue for venue in venues if _names(venue, said)}
    for venue in sorted(named, key=len, reverse=True):
        said = re.sub(rf"\b{re.escape(venue.lower())}\b", "_", said)
    found = {
        field: {value for value, pattern in patterns.items() if re.search(pattern, said)}
        for field, patterns in PATTERNS.items()
    }
    return named, found


def _names(venue: str, said: str) -> bool:
    return re.search(rf"\b{re.escape(venue.lower())}\b", said) is not None


def _longest(names: set[str]) -> set[str]:
    """Names that are not part of another."""
    return {a for a in names if not any(a != b and a.lower() in b.lower() for b in names)}


def _told(found: Slots, beside: str) -> dict[str, float]:
    return {
        f"slot_error_rate{beside}": found.rate,
        **{
            f"slots_{kind}{beside}": getattr(found, kind) / max(found.slots, 1)
            for kind in ("missing", "wrong", "added")
        },
    }
