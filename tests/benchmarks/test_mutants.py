"""The mutants themselves: one place at a time, all that computes and nothing else."""

import ast
from pathlib import Path

import pytest

from benchmarks import mutants as benchmark
from benchmarks.mutation import Mutant, mutants, mutated
from shared.provenance import ROOT

SOURCE = '''
"""A docstring: 1 + 1."""

class Point(Protocol):
    def far(self) -> 1 + 1: ...

def step(x, move, at, to, steps: 1 + 1 = 2 - 1):
    """Another: x - 1."""
    if steps < 1:
        raise ValueError(f"{steps - 1}")
    keep = at.alpha * move.to.sigma
    y = at if x.sum(-1) > 0 else to
    return -keep.sqrt().to(x) ** 2
'''
CHANGES = [
    "at.alpha * move.to.sigma -> at.alpha / move.to.sigma",
    "at.alpha * move.to.sigma -> 2 * (at.alpha * move.to.sigma)",
    "at.alpha -> at.sigma",
    "at -> to",
    "move.to.sigma -> move.to.alpha",
    "move.to -> move.at",
    "at if x.sum(-1) > 0 else to -> to if x.sum(-1) > 0 else at",
    "x.sum(-1) > 0 -> x.sum(-1) < 0",
    "x.sum(-1) -> x.sum(0)",
    "x.sum -> x.mean",
    "-1 -> 1",
    "at -> to",
    "to -> at",
    "-keep.sqrt().to(x) ** 2 -> keep.sqrt().to(x) ** 2",
    "keep.sqrt().to(x) ** 2 -> keep.sqrt().to(x)",
    "keep.sqrt().to(x) ** 2 -> 2 * keep.sqrt().to(x) ** 2",
    "keep.sqrt -> keep.square",
]


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    return path


def test_all_that_computes_is_broken_and_nothing_else(module: Path):
    found = [f"{mutant.before} -> {mutant.after}" for mutant in mutants(module)]
    assert sorted(found) == sorted(CHANGES)


def test_each_mutant_differs_from_its_module_in_one_expression(module: Path):
    whole = ast.unparse(ast.parse(SOURCE))
    texts = [mutated(mutant) for mutant in mutants(module)]
    assert len(set(texts)) == len(CHANGES)
    for text in texts:
        lines = zip(whole.splitlines(), text.splitlines(), strict=True)
        assert sum(old != new for old, new in lines) == 1


def test_place_that_is_none_is_refused(module: Path):
    with pytest.raises(ValueError, match="99 is none of its places"):
        mutated(Mutant(module, 99, 1, "", ""))


def test_every_module_that_is_broken_has_tests_that_mirror_it():
    for name in benchmark.MODULES:
        for file in benchmark.files_of(name):
            tests = benchmark.tests_of(file)
            assert tests
            assert all((ROOT / test).is_file() for test in tests)


def test_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="shared/nothing is neither"):
        benchmark.files_of("nothing")


def test_broken_formula_fails_and_a_change_without_effect_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A copy of one module and a test of its own, in place of the repository's."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "tests/shared").mkdir(parents=True)
    (tmp_path / "shared/half.py").write_text("def half(x):\n    return x / 2 - 0\n")
    test = "from shared.half import half\n\ndef test_half():\n    assert half(6) == 3\n"
    (tmp_path / "tests/shared/test_half.py").write_text(test)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\npythonpath = ['.']\n")
    monkeypatch.setattr(benchmark, "ROOT", tmp_path)
    monkeypatch.setattr(benchmark, "COPIED", ("shared", "tests", "pyproject.toml"))
    report = tmp_path / "mutants.json"
    assert benchmark.run(n=99, modules=("half",), workers=2, json_file=report) == 1
    rows = benchmark.json.loads(report.read_text())["mutants"]
    fates = {f"{row['before']} -> {row['after']}": row["fate"] for row in rows}
    assert fates == {
        "x / 2 - 0 -> x / 2 + 0": "survived",
        "x / 2 - 0 -> 2 * (x / 2 - 0)": "failed",
        "x / 2 -> x * 2": "failed",
        "x / 2 -> 2 * (x / 2)": "failed",
    }
