"""What is asked of sentences by operators, in words and as energies.

    tone=formal            this
    tone!=formal           anything else
    tone=formal|cheerful   one of these; "tone=formal|audience=child" one of the two or both
    tone!=formal|cheerful  neither of these
    2*tone=formal          with weight 2

All demands hold together: their energies, minus log-probabilities, are added with their weights.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from shared.errors import ConfigError
from shared.guidance import Energy
from shared.guidance.logic import log_any, log_one_of
from shared.schedule import Level
from text.operators.learner import Operator


@dataclass(frozen=True)
class Atom:
    """An operator's name and values, one of which must be, or none of which may be."""

    name: str
    values: tuple[str, ...]
    holds: bool = True

    def satisfied(self, value: str | None) -> bool:
        """By a value of the operator."""
        return (value in self.values) == self.holds


@dataclass(frozen=True)
class Demand:
    """One of its atoms must hold; as it was written, and its weight."""

    written: str
    atoms: tuple[Atom, ...]
    weight: float = 1.0

    def allowed(self, classes: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
        """The classes that satisfy it, for each operator by name. ConfigError for a value that an
        operator has not, and for what all classes of one satisfy, or none."""
        found: dict[str, set[int]] = {}
        for atom in self.atoms:
            known = classes[atom.name]
            for value in atom.values:
                self._check_value(atom.name, value, known)
            chosen = {i for i, value in enumerate(known) if atom.satisfied(value)}
            if not chosen:
                raise ConfigError(
                    f"operator {self.written!r}: {atom.name} is one of {', '.join(known)}, and "
                    "this allows none of them"
                )
            found.setdefault(atom.name, set()).update(chosen)
        for name, chosen in found.items():
            if len(chosen) == len(classes[name]):
                raise ConfigError(
                    f"operator {self.written!r}: asks for nothing, every value of {name} satisfies "
                    "it; for what must hold together give --operator twice"
                )
        return {name: sorted(chosen) for name, chosen in found.items()}

    def satisfied(self, values: Mapping[str, str]) -> bool:
        """Whether the values (by operator) of a sentence satisfy it."""
        return any(atom.satisfied(values.get(atom.name)) for atom in self.atoms)

    def _check_value(self, name: str, value: str, known: Sequence[str]) -> None:
        if value in known:
            return
        near = difflib.get_close_matches(value, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"operator {self.written!r}: {name} has no value {value!r}, expected one of "
            f"{', '.join(known)}{hint}"
        )


def parse_demand(word: str) -> Demand:
    """A demand as it is written. ConfigError for one that does not read."""
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)\*)?(.+)", word.strip())
    weight = float(found[1] or 1) if found else 0.0
    atoms: list[Atom] = []
    for part in found[2].split("|") if found else []:
        said = re.fullmatch(r"(?:(.+?)(!?=))?([^=]+)", part.strip())
        if said is None or not (said[1] or atoms):
            raise ConfigError(
                f"operator {word!r}: expected NAME=VALUE, NAME!=VALUE, NAME=VALUE|VALUE or "
                "2*NAME=VALUE"
            )
        value = said[3].strip()
        if said[1]:
            atoms.append(Atom(said[1].strip(), (value,), said[2] == "="))
        else:
            atoms[-1] = replace(atoms[-1], values=(*atoms[-1].values, value))
    if not weight > 0 or not atoms:
        raise ConfigError(f"operator {word!r}: expected a demand, and a weight above 0")
    return Demand(word, tuple(atoms), weight)


def demand_energy(demand: Demand, operators: Mapping[str, Operator]) -> Energy:
    """-log p(the demand holds | z) at the level of z, nats (B,); unweighted."""
    allowed = demand.allowed({name: one.classes for name, one in operators.items()})

    def energy(z: Tensor, level: Level) -> Tensor:
        return -log_any(
            [
                log_one_of(operators[name].log_probs(z, level), classes)
                for name, classes in allowed.items()
            ]
        )

    return energy
