"""Breaking a module in one place: a sign, a factor 2, alpha for sigma, `at` for `to`, an axis.

Mutation-testing libraries break operators and constants; the slips that formulas of diffusion
invite (sigma for alpha, the level before the step for the one after) are not among theirs. Only
what computes is broken: no docstring, annotation, default, message, or check that only raises.
"""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TWINS = {
    **{"alpha": "sigma", "sigma": "alpha", "at": "to", "to": "at"},
    **{"x_t": "x_s", "x_s": "x_t", "mean": "std", "std": "mean"},
}
FUNCTIONS = {
    **{"sin": "cos", "cos": "sin", "exp": "expm1", "expm1": "exp", "log": "log1p", "log1p": "log"},
    **{"sum": "mean", "mean": "sum", "min": "max", "max": "min", "amin": "amax", "amax": "amin"},
    **{
        "sqrt": "square",
        "square": "sqrt",
        "rsqrt": "sqrt",
        "cumsum": "cumprod",
        "argmin": "argmax",
    },
    **{"argmax": "argmin", "add": "sub", "add_": "sub_", "mul": "div", "mul_": "div_"},
    **{"softmax": "log_softmax", "floor": "ceil", "sinh": "cosh", "cosh": "sinh", "tan": "sin"},
}
OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Lt: ast.Gt,
    ast.Gt: ast.Lt,
    ast.LtE: ast.GtE,
    ast.GtE: ast.LtE,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)
SILENT = (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom, ast.JoinedStr)


@dataclass(frozen=True)
class Mutant:
    """One change of one module. `place` numbers it among the module's possible changes."""

    module: Path
    place: int
    line: int
    before: str
    after: str


def mutants(module: Path) -> list[Mutant]:
    """Every change that can be made to a module, in the order of its text."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return [
        Mutant(module, place, node.lineno, ast.unparse(node), ast.unparse(changed))
        for place, (_, _, node, changed) in enumerate(_changes(tree))
    ]


def mutated(mutant: Mutant) -> str:
    """The text of the module with the change made (and without its comments)."""
    tree = ast.parse(mutant.module.read_text(encoding="utf-8"))
    for place, (holder, key, _, changed) in enumerate(_changes(tree)):
        if place == mutant.place:
            if isinstance(key, str):
                setattr(holder, key, changed)
            else:
                holder[key] = changed
            return ast.unparse(ast.fix_missing_locations(tree))
    raise ValueError(f"{mutant.module}: {mutant.place} is none of its places")


def _changes(tree: ast.AST) -> Iterator[tuple[Any, str | int, ast.expr, ast.expr]]:
    """(holder, key, expression, what may stand in its place)."""
    for holder, key, node, names in _expressions(tree, frozenset()):
        if isinstance(holder, ast.Call) and key == "func":
            changes = _instead_of_function(node)
        else:
            changes = _instead(node, names)
        for changed in changes:
            yield holder, key, node, changed


def _expressions(
    node: ast.AST, names: frozenset[str]
) -> Iterator[tuple[Any, str | int, ast.expr, frozenset[str]]]:
    """Every expression that computes, with the node or list that holds it and under which key, and
    the names of the function around it."""
    if isinstance(node, SILENT) or _only_tells(node):
        return
    if isinstance(node, ast.FunctionDef):
        inside = [x for x in ast.walk(node) if isinstance(x, ast.Name | ast.arg)]
        names = frozenset(x.id if isinstance(x, ast.Name) else x.arg for x in inside)
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "defaults", "kw_defaults", "bases"):
            continue
        if field == "test" and isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise):
            continue
        several = isinstance(value, list)
        holder: Any = value if several else node
        for key, child in enumerate(value) if several else [(field, value)]:
            if not isinstance(child, ast.AST):
                continue
            if isinstance(child, ast.expr):
                yield holder, key, child, names
            yield from _expressions(child, names)


def _only_tells(node: ast.AST) -> bool:
    """Docstrings and other bare constants; protocols, whose bodies say nothing; defaults."""
    if isinstance(node, ast.ClassDef):
        return any(ast.unparse(base) == "Protocol" for base in node.bases)
    if isinstance(node, ast.AnnAssign):
        return isinstance(node.value, ast.Constant | ast.UnaryOp)
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _instead(node: ast.expr, names: frozenset[str]) -> Iterator[ast.expr]:
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            if not any(isinstance(x, ast.Tuple | ast.List | ast.JoinedStr) for x in (left, right)):
                yield from _of_operation(node, op)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            yield copy.deepcopy(operand)
        case ast.Compare(ops=[op]) if type(op) in OPERATORS:
            yield _with(node, ops=[OPERATORS[type(op)]()])
        case ast.BoolOp(op=op):
            yield _with(node, op=OPERATORS[type(op)]())
        case ast.IfExp(body=body, orelse=orelse):
            yield _with(node, body=copy.deepcopy(orelse), orelse=copy.deepcopy(body))
        case ast.Name(id=name, ctx=ast.Load()) if TWINS.get(name) in names:
            yield _with(node, id=TWINS[name])
        case ast.Attribute(attr=name, ctx=ast.Load()) if name in TWINS:
            yield _with(node, attr=TWINS[name])
        case ast.Attribute(attr="mT" | "T", value=value):
            yield copy.deepcopy(value)
        case ast.Call(
            func=ast.Attribute(attr="sum" | "mean" | "softmax" | "logsumexp"), args=[axis]
        ):
            if ast.unparse(axis) == "-1":
                yield _with(node, args=[ast.Constant(0)])
        case _:
            pass


def _instead_of_function(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Attribute(attr=name) if name in FUNCTIONS:
            yield _with(node, attr=FUNCTIONS[name])
        case _:
            pass


def _of_operation(node: ast.BinOp, op: ast.operator) -> Iterator[ast.expr]:
    if type(op) in OPERATORS:
        yield _with(node, op=OPERATORS[type(op)]())
    if isinstance(op, ast.Pow):
        yield copy.deepcopy(node.left)
    if isinstance(op, ARITHMETIC):
        yield ast.BinOp(ast.Constant(2), ast.Mult(), copy.deepcopy(node))
    if isinstance(op, ast.MatMult):
        yield _with(node, left=copy.deepcopy(node.right), right=copy.deepcopy(node.left))


def _with(node: ast.expr, **changes: Any) -> ast.expr:
    changed = copy.deepcopy(node)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed
