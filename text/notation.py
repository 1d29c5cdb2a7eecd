"""A notation for grammars of scenes: names, and alternatives in a row or on indented lines.

    colour=red: 4* red / scarlet
    clause:
        2* (S (NP there) (VP is/VERB {thing:0}))
        (S {thing:0} (VP lies [here] {place:0}))

`(LABEL ...)` is a constituent, `token/TAG` a leaf (the lexicon knows most tags), `[...]` may be
left out, `2*` weighs an alternative. `{name:0:1 argument}` stands for the rule `name` about things
0 and 1, in which `{arg}` stands for the argument; numbers not given are those of the rule around.
A rule `name=value` makes `{name}` a slot: the fact ("name", 0) picks the rule of its value, and
`{name.variant}` asks the same fact but has rules of its own, `name.variant=value`.

A rule may differ by register: of `name3@formal-child`, `name3@formal`, `name3@child`, `name3`, and
the same without the number of things, the first that exists is taken.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from text.grammar import Choice, Leaf, Node, Phrase, Slot

OPTIONAL = 0.35  # how often [...] is said
_ATOM = re.compile(r"\{[^}]*\}|\([A-Z]+|[)\[\]]|[^\s()\[\]{}]+")
_WEIGHT = re.compile(r"([0-9.]+)\*\s*(.*)")


@dataclass(frozen=True)
class Register:
    """What is fixed for a whole sentence: the manner, how many things, and whether all is said."""

    tone: str
    audience: str
    n: int
    full: bool


def read_rules(source: str) -> dict[str, list[str]]:
    """The notation -> alternatives by name. Lines that begin with # are comments, an alternative
    goes on while a bracket is open. ValueError when a name comes twice."""
    rules: dict[str, list[str]] = {}
    open_brackets, name = 0, ""
    for line in source.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if not line[0].isspace():
            name, _, line = line.partition(":")
            if name in rules:
                raise ValueError(f"rule {name!r} comes twice")
            rules[name] = []
        for part in line.split(" / "):
            if open_brackets:
                rules[name][-1] += " " + part.strip()
            elif part.strip():
                rules[name].append(part.strip())
            open_brackets += part.count("(") - part.count(")")
    return rules


class Compiler:
    """Rules -> nodes of one register; equal symbols become one node."""

    def __init__(
        self, rules: Mapping[str, list[str]], tags: Mapping[str, str], register: Register
    ) -> None:
        self._rules, self._tags, self._register = rules, tags, register
        self._values: dict[str, list[str]] = {}
        for name in rules:
            name, equals, value = name.partition("@")[0].partition("=")
            if equals and value not in self._values.setdefault(name, []):
                self._values[name].append(value)
        self._made: dict[tuple[str, tuple[int, ...], str], Node] = {}

    def build(self, symbol: str, about: tuple[int, ...] = (), argument: str = "") -> Node:
        """The node of `name:0:1 argument`. KeyError when there is no such rule."""
        head, _, rest = symbol.partition(" ")
        name, *numbers = head.split(":")
        about = tuple(map(int, numbers)) or about
        if name == "arg":
            return self.build(argument, about)
        argument = rest.replace("{arg}", argument)
        key = (name, about, argument)
        if key not in self._made:
            if name in self._values:
                options = {
                    value: self._rule(f"{name}={value}", about, argument)
                    for value in self._values[name]
                }
                self._made[key] = Slot((name.partition(".")[0], *about), options)
            else:
                self._made[key] = self._rule(name, about, argument)
        return self._made[key]

    def _rule(self, name: str, about: tuple[int, ...], argument: str) -> Node:
        weighted: list[tuple[float, Node]] = []
        for template in self._alternatives(name):
            weight = 1.0
            if found := _WEIGHT.fullmatch(template):
                weight, template = float(found[1]), found[2]
            atoms = _ATOM.findall(template)
            if "".join(atoms) != re.sub(r"\s+(?![^{]*\})", "", template):
                raise ValueError(f"rule {name}: cannot read {template!r}")
            nodes = self._sequence(atoms, about, argument)
            weighted.append((weight, nodes[0] if len(nodes) == 1 else Phrase(None, nodes)))
        return weighted[0][1] if len(weighted) == 1 else Choice(weighted)

    def _alternatives(self, name: str) -> list[str]:
        register = self._register
        bases = [f"{name}{register.n}", name]
        if register.full:
            bases = [f"full {base}" for base in bases] + bases
        manner = f"@{register.tone}-{register.audience}"
        for base in bases:
            for suffix in (manner, f"@{register.tone}", f"@{register.audience}", ""):
                if base + suffix in self._rules:
                    return self._rules[base + suffix]
        raise KeyError(f"no rule {name!r} for {register}")

    def _sequence(self, atoms: list[str], about: tuple[int, ...], argument: str) -> list[Node]:
        """Read atoms up to a closing bracket, taking them from the list."""
        nodes: list[Node] = []
        while atoms:
            atom = atoms.pop(0)
            if atom in (")", "]"):
                break
            if atom == "[":
                said = Phrase(None, self._sequence(atoms, about, argument))
                nodes.append(Choice([(OPTIONAL, said), (1 - OPTIONAL, Phrase(None, []))]))
            elif atom.startswith("("):
                nodes.append(Phrase(atom[1:], self._sequence(atoms, about, argument)))
            elif atom.startswith("{"):
                nodes.append(self.build(atom[1:-1], about, argument))
            else:
                token, _, tag = atom.partition("/")
                nodes.append(Leaf(token, tag or self._tags[token]))
        return nodes
