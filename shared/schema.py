"""One configuration mechanism: frozen dataclasses are the schema, YAML is a file of them, and
`key=value` overrides go through the same validation.

Unknown keys are errors that name the nearest one; impossible values are refused before anything
is built.
"""

import copy
import dataclasses
import difflib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, dataclass_transform, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from shared.errors import ConfigError
from shared.files import write_text

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def schema(cls: type[T]) -> type[T]:
    """A frozen dataclass that pydantic validates and that forbids unknown keys."""
    made = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    cast(Any, made).__pydantic_config__ = ConfigDict(extra="forbid")
    return made


def positive(name: str, *values: float) -> None:
    """Raise ValueError unless all values are finite and above zero."""
    for value in values:
        if not 0 < value < math.inf:
            raise ValueError(f"{name} = {value}: expected a finite number above 0")


def not_negative(name: str, value: float) -> None:
    """ValueError unless `value` is 0 or more, and finite."""
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} = {value}: expected 0 or more")


def one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ValueError, with the nearest choice, unless value is one of the choices."""
    if value not in choices:
        near = difflib.get_close_matches(value, choices, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{name} = {value!r}: expected one of {', '.join(choices)}{hint}")


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as in YAML 1.2, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        given: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in given:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value} is given twice", problem_mark=key.start_mark
                )
            given.add(str(key.value))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _parse(text: str, source: str) -> Any:
    """YAML text -> its value. ConfigError, which names the source, when it is not YAML."""
    try:
        return yaml.load(text, _Loader)
    except Exception as error:  # its constructors let out what they meet: KeyError for !!bool x
        raise ConfigError(f"{source}: not valid YAML: {error}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of one mapping. ConfigError when it is missing or something else."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such configuration file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a YAML file: {error}") from None
    loaded = _parse(text, str(path))
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, got {type(loaded).__name__}")
    return cast(dict[str, Any], loaded)


def override(values: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """`values` with `a.b=value` assignments laid over; each value is read as YAML."""
    merged = copy.deepcopy(values)
    for assignment in assignments:
        path, found, text = assignment.partition("=")
        if not found or not all(path.split(".")):
            raise ConfigError(f"{assignment!r}: expected key=value, for example train.steps=100")
        *parents, last = path.split(".")
        place: dict[str, Any] = merged
        for parent in parents:
            inner = place.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{assignment!r}: {parent} is a value, not a section")
            place = cast(dict[str, Any], inner)
        place[last] = _parse(text, repr(assignment))
    return merged


def validate(kind: type[T], values: dict[str, Any], source: str) -> T:
    """A mapping -> the dataclass `kind`. ConfigError lists each bad key with what was expected.

    A section that is given in part keeps the defaults that `kind` states for that section.
    """
    try:
        return TypeAdapter(kind).validate_python(_with_defaults(kind, values))
    except ValidationError as error:
        lines = [_explain(kind, dict(item)) for item in error.errors()]
        raise ConfigError("\n".join(f"{source}: {line}" for line in lines)) from None


def _with_defaults(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for field in dataclasses.fields(kind):
        given, default = merged.get(field.name), field.default
        if dataclasses.is_dataclass(default) and isinstance(given, dict):
            stated = dataclasses.asdict(cast(Any, default))
            merged[field.name] = _overlay(stated, cast(dict[str, Any], given))
    return merged


def _overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _overlay(cast(dict[str, Any], old), cast(dict[str, Any], value))
        merged[key] = value
    return merged


def _explain(kind: type, item: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = keys(kind) + sorted({k.split(".")[0] for k in keys(kind)})
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else f"; known keys: {', '.join(keys(kind))}"
        return f"unknown key {key}{hint}"
    message = str(item["msg"]).removeprefix("Value error, ")
    return message if item["type"] == "value_error" else f"{key}: {message}, got {item['input']!r}"


def keys(kind: type, prefix: str = "") -> list[str]:
    """All dotted keys of a schema, sections included by their members."""
    found: list[str] = []
    for name, hint in get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            found += keys(cast(type, hint), f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


def write_yaml(config: Any, path: Path) -> None:
    """The complete configuration as YAML, written atomically."""
    write_text(path, yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))
