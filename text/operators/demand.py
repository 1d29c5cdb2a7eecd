"""What is asked of sentences by operators, in words and as energies.

    tone=formal            this
    tone!=formal           anything else
    tone=formal|cheerful   one of these; "tone=formal|audience=child" one of the two or both
    2*tone=formal          with weight 2

All demands hold together: their energies, minus log-probabilities, are added with their weights.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from shared.errors import ConfigError
from shared.guidance import Energy
from shared.guidance.logic import log_any, log_one_of
from shared.schedule import Level
from text.operators.learner import Operator


@dataclass(frozen=True)
class Atom:
    """An operator's name and a value that must be, or must not be."""

    name: str
    value: str
    holds: bool = True


@dataclass(frozen=True)
class Demand:
    """One of its atoms must hold; as it was written, and its weight."""

    written: str
    atoms: tuple[Atom, ...]
    weight: float = 1.0

    def allowed(self, classes: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
        """The classes that satisfy it, for each operator by name. ConfigError for a value that an
        operator has not."""
        found: dict[str, set[int]] = {}
        for atom in self.atoms:
            known = classes[atom.name]
            if atom.value not in known:
                near = difflib.get_close_matches(atom.value, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ConfigError(
                    f"operator {self.written!r}: {atom.name} has no value {atom.value!r}, expected "
                    f"one of {', '.join(known)}{hint}"
                )
            chosen = {i for i, value in enumerate(known) if (value == atom.value) == atom.holds}
            found.setdefault(atom.name, set()).update(chosen)
        return {name: sorted(chosen) for name, chosen in found.items()}

    def satisfied(self, values: Mapping[str, str]) -> bool:
        """Whether the values (by operator) of a sentence satisfy it."""
        return any((values.get(atom.name) == atom.value) == atom.holds for atom in self.atoms)


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
        name, holds = (said[1].strip(), said[2] == "=") if said[1] else (atoms[-1].name, True)
        if not said[1]:
            holds = atoms[-1].holds
        atoms.append(Atom(name, said[3].strip(), holds))
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
