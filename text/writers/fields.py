"""The writer of restaurant descriptions, for runs that write from fields (E2E).

    --message "name: Blue Spice, food: Chinese" --tone cheap --audience family

The message is the fields. The tone is the price range, the audience the field family friendly;
which fields and values there are, in which order a source has them, and which it cannot do without,
the training data say. `text.metrics.slots` reads which of them a sentence says, by patterns that
err now and then: every field that is asked for has to be said, and no other.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shared.errors import ConfigError
from shared.requests import WriteRequest
from shared.sampling import Sampling
from shared.schema import one_of
from text.config import DataConfig
from text.data import read_corpus
from text.metrics.slots import VENUES, count, held, read_slots
from text.parts import signs_apart
from text.pipeline import Pipeline
from text.writers.from_source import draw_from
from text.writers.wanted import (
    Drawn,
    Wanted,
    between_commas,
    check_strength_used,
    check_wanted,
    dealt,
)

TONE, AUDIENCE = "priceRange", "familyFriendly"
AUDIENCES = {"family": "yes", "adults": "no"}


@dataclass(frozen=True)
class Form:
    """What sources of a training split hold.

    values: of each field, as sources spell them; fields in the order of the longest source.
    always: the fields that no source is without. fewest: how many a source has at least.
    """

    values: dict[str, list[str]]
    always: tuple[str, ...]
    fewest: int

    def field(self, said: str) -> str:
        """The field that is meant, whatever its blanks and capitals. ConfigError for none."""
        return _meant("message: field", said, list(self.values))

    def value(self, field: str, said: str, name: str | None = None) -> str:
        """The same of a value; `name` is what it was given as."""
        return _meant(name or f"message: {field}", said, self.values[field])

    def spell(self, fields: Mapping[str, str]) -> str:
        """A source of these fields: `name[Zizzi], food[Italian]`."""
        return ", ".join(f"{name}[{fields[name]}]" for name in self.values if name in fields)

    @property
    def venues(self) -> set[str]:
        """All names that a description can have."""
        return {signs_apart(value) for name in VENUES for value in self.values.get(name, [])}


def read_form(config: DataConfig) -> Form:
    """Of the training split. ConfigError for sources that are not fields of descriptions, and the
    errors of `text.data.read_corpus`."""
    sources = dict.fromkeys(read_corpus(config).sources or [])
    rows = [_cells(source) for source in sources]
    wrong = next((source for source in sources if read_slots(source) is None), None)
    if wrong is not None or not rows:
        raise ConfigError(
            f"write: from sources such as name[Zizzi], food[Italian] (text/e2e_data_to_text), and "
            f"this run's are others: {wrong!r}; use diptych sample --prompt"
        )
    values: dict[str, list[str]] = {}
    for row in sorted(rows, key=len, reverse=True):
        for name, value in row.items():
            known = values.setdefault(name, [])
            if value not in known:
                known.append(value)
    times = Counter(name for row in rows for name in row)
    always = tuple(name for name in values if times[name] == len(rows))
    return Form(values, always, min(map(len, rows)))


@dataclass(frozen=True)
class FieldWriter:
    """A `Writer` of some fields."""

    pipeline: Pipeline
    request: WriteRequest
    form: Form
    fields: dict[str, str]

    @property
    def how(self) -> Sampling:
        return self.request

    def parts(self) -> list["FieldWriter"]:
        """Each with the fields that no source is without, and with as many as any source has."""
        own = {name: self.fields[name] for name in self.form.always if name in self.fields}
        others = [name for name in self.form.values if name in self.fields and name not in own]
        found = dealt(others, max(self.form.fewest - len(own), 1))
        return [
            replace(self, fields=own | {name: self.fields[name] for name in some}) for some in found
        ]

    def draw(self, seeds: Sequence[int], near: str | None) -> list[Drawn]:
        source = self.form.spell(self.fields)
        return draw_from(self.pipeline, self.request, self.how, source, [], seeds, near)

    def told(self, text: str) -> dict[str, float]:
        slots = {name: signs_apart(value) for name, value in self.fields.items()}
        said = held(text, slots, self.form.venues)
        alone = not count(text, slots, self.form.venues).added
        return {
            **{name: float(found) for name, found in said.items()},
            "fields": float(all(said.values())),
            "nothing_else": float(alone),
            "all": float(all(said.values()) and alone),
        }

    def about(self) -> dict[str, Any]:
        return {"source": self.form.spell(self.fields)}


def field_writer(pipeline: Pipeline, request: WriteRequest, wanted: Wanted) -> FieldWriter:
    """ConfigError for fields and values that the training data do not have, and for a field that
    is asked for twice or cannot be left out."""
    check_wanted(wanted.message, wanted.tone, wanted.audience)
    check_strength_used(request)
    if request.control_scale != WriteRequest.control_scale:
        raise ConfigError(
            "control_scale: of words that sentences must hold; how strongly fields are followed is "
            "guidance"
        )
    form = read_form(pipeline.config.data)
    fields = read_fields(wanted.message, form)
    for option, field, said in (
        ("tone", TONE, wanted.tone),
        ("audience", AUDIENCE, _audience(form, wanted.audience)),
    ):
        if said is None:
            continue
        if field not in form.values:
            raise ConfigError(f"{option}: is the field {field}, and the training data have none")
        value = form.value(field, said, option)
        if fields.setdefault(field, value) != value:
            raise ConfigError(
                f"{option}, message: {field} is asked to be {value} and {fields[field]}; leave one "
                "out"
            )
    for name in form.always:
        if name not in fields:
            raise ConfigError(
                f"message: no source of the training data is without {name}; say it too, as in "
                f"--message '{name}: {form.values[name][0]}'"
            )
    return FieldWriter(pipeline, request, form, fields)


def read_fields(message: str, form: Form) -> dict[str, str]:
    """`name: Blue Spice, food: Chinese`, or with brackets as in a source -> values by field, both
    as the training data spell them. ConfigError for what they do not have, or a field twice."""
    fields: dict[str, str] = {}
    for part in between_commas(message):
        found = re.fullmatch(r"([^:\[\]]+?)\s*(?::\s*(.+)|\[\s*(.+?)\s*\])", part)
        if found is None:
            raise ConfigError(
                f"message = {part!r}: expected fields, FIELD: VALUE with commas between them; "
                f"fields are {', '.join(form.values)}"
            )
        name = form.field(found[1])
        value = form.value(name, found[2] or found[3])
        if fields.setdefault(name, value) != value:
            raise ConfigError(f"message: {name} is {fields[name]} and {value}; leave one out")
    return fields


def _audience(form: Form, said: str | None) -> str | None:
    """Its value of the field."""
    if said is None or AUDIENCE not in form.values:
        return said
    known = [name for name, value in AUDIENCES.items() if value in form.values[AUDIENCE]]
    return AUDIENCES[_meant("audience", said, known)]


def _cells(source: str) -> dict[str, str]:
    """A source -> its values by field, spelt as it spells them."""
    return dict(re.findall(r"(\w[\w ]*?) ?\[ ?([^\[\]]*?) ?\]", source))


def _meant(name: str, said: str, known: Sequence[str]) -> str:
    """The one of those known that differs in blanks, signs and capitals at most."""
    plain = {re.sub(r"\W", "", one).lower(): one for one in known}
    found = plain.get(re.sub(r"\W", "", said).lower(), said)
    try:
        one_of(name, found, known)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return found
