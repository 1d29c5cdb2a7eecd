"""Do the tests notice wrong mathematics? `make mutants`, or `python -m benchmarks.mutants`.

Changes drawn by seed from all that can be made to the mathematical modules, each in a copy of the
packages on which the tests that mirror its module run. Caught: a test fails, or does not end. What
survives is listed with its line: either the change alters nothing, or a test is missing.
"""

import compileall
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.command import command
from benchmarks.mutation import Mutant, mutants, mutated
from shared.files import write_text
from shared.provenance import ROOT, provenance

# Further tests of a module or package NAME than tests/shared/test_NAME*.py.
MIRRORS = {
    "prediction": ("test_denoiser.py", "test_solver.py"),
    "objective": ("test_denoiser.py",),
    "density": ("test_denoiser.py", "test_schedule.py"),
    "solver": ("test_corrector.py", "test_grid.py", "test_gaussian_diffusion.py"),
}
MODULES = (
    *("gaussian", "prediction", "denoiser", "objective", "density", "noise", "codec"),
    *("oracle", "schedule", "solver", "guidance", "likelihood", "interop"),
)
COPIED = ("shared", "image", "text", "benchmarks", "tests", "pyproject.toml", "diptych.py")
GOAL = 0.97
PATIENCE = 3  # times what the tests take unbroken, before they count as hanging


def run(
    seed: int = 0,
    n: int = 200,
    modules: tuple[str, ...] = MODULES,
    workers: int | None = None,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> int:
    """Break n places and count what the tests catch; ends with 1 when fewer than 97 % are caught.

    Args:
        seed: Chooses the places.
        n: How many.
        modules: Modules or packages of shared/.
        workers: Processes at a time; by default one a core.
        json_file: Write every change and what became of it here.
    """
    console = Console()
    files = [file for name in modules for file in files_of(name)]
    possible = [mutant for file in files for mutant in mutants(file)]
    chosen = random.Random(seed).sample(possible, min(n, len(possible)))
    console.print(f"{len(chosen)} of {len(possible):,} places in {len(files)} modules, seed {seed}")
    began = time.monotonic()
    fates = _try_all(chosen, workers or os.cpu_count() or 1, console)
    caught = sum(fate != "survived" for fate in fates)
    console.print(_by_module(chosen, fates))
    share = caught / len(chosen)
    seconds = time.monotonic() - began
    console.print(f"{caught} of {len(chosen)} caught ({share:.1%}) in {seconds:,.0f} s")
    if json_file is not None:
        rows = [
            asdict(mutant) | {"module": str(mutant.module.relative_to(ROOT)), "fate": fate}
            for mutant, fate in zip(chosen, fates, strict=True)
        ]
        about = {"seed": seed, "places": len(possible), "caught": caught, "share": share}
        page = {"about": about, "mutants": rows, "provenance": provenance()}
        write_text(json_file, json.dumps(page, indent=1))
    return int(share < GOAL)


def tests_of(module: Path) -> list[str]:
    """The test files that mirror a module, relative to the repository."""
    name = module.relative_to(ROOT).as_posix()
    stem = name.split("/")[1].removesuffix(".py")
    patterns = (f"test_{stem}.py", f"test_{stem}_*.py", *MIRRORS.get(stem, ()))
    found = {file for pattern in patterns for file in (ROOT / "tests/shared").glob(pattern)}
    if not found:
        raise ValueError(f"{name}: no tests/shared/test_{stem}*.py; add it, or name it in MIRRORS")
    return [str(file.relative_to(ROOT)) for file in sorted(found)]


def files_of(name: str) -> list[Path]:
    """The files of a module or package of shared/. ValueError when there is none."""
    folder = ROOT / "shared" / name
    if folder.is_dir():
        return sorted(file for file in folder.glob("*.py") if file.name != "__init__.py")
    file = folder.with_suffix(".py")
    if not file.is_file():
        raise ValueError(f"modules: shared/{name} is neither a module nor a package")
    return [file]


def _try_all(chosen: Sequence[Mutant], workers: int, console: Console) -> list[str]:
    """What became of each, in its order: "failed", "hung" or "survived", the last told at once."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        Progress(console=console) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        free: SimpleQueue[Path] = SimpleQueue()
        for number in range(workers):
            free.put(_copy(Path(scratch) / str(number)))
        suites = {tuple(tests_of(mutant.module)) for mutant in chosen}
        task = bar.add_task("mutants", total=len(chosen) + len(suites))

        def unbroken(tests: tuple[str, ...]) -> float:
            folder, began = free.get(), time.monotonic()
            fate, told = _pytest(folder, tests, None)
            free.put(folder)
            bar.advance(task)
            if fate != "survived":
                raise RuntimeError(f"the tests fail before anything is broken:\n{told}")
            return time.monotonic() - began

        patience = dict(zip(suites, pool.map(unbroken, suites), strict=True))

        def broken(mutant: Mutant) -> str:
            tests = tuple(tests_of(mutant.module))
            folder = free.get()
            victim = folder / mutant.module.relative_to(ROOT)
            victim.write_text(mutated(mutant), encoding="utf-8")
            fate, _ = _pytest(folder, tests, PATIENCE * patience[tests] + 30)
            shutil.copy2(mutant.module, victim)  # with its time, by which its bytecode counts again
            free.put(folder)
            bar.advance(task)
            if fate == "survived":
                where = f"{mutant.module.relative_to(ROOT)}:{mutant.line}"
                told = f"survived  {where}  {mutant.before}  ->  {mutant.after}"
                console.print(told, markup=False, soft_wrap=True)
            return fate

        return list(pool.map(broken, chosen))


def _copy(folder: Path) -> Path:
    """The packages, compiled: what is not broken must not be compiled again for every run."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    compileall.compile_dir(folder, quiet=1)
    return folder


def _pytest(folder: Path, tests: Sequence[str], seconds: float | None) -> tuple[str, str]:
    """What became of the packages in a folder under some tests, and what pytest said."""
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    alone = {
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # they take longer to load than some tests run
        "OMP_NUM_THREADS": "1",
    }
    try:
        done = subprocess.run(
            words,
            cwd=folder,
            env=os.environ | alone,
            timeout=seconds,
            capture_output=True,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return "hung", ""
    return ("survived" if done.returncode == 0 else "failed"), done.stdout[-2000:]


def _by_module(chosen: Sequence[Mutant], fates: Sequence[str]) -> Table:
    counts: dict[str, list[int]] = {}
    for mutant, fate in zip(chosen, fates, strict=True):
        row = counts.setdefault(str(mutant.module.relative_to(ROOT)), [0, 0])
        row[0] += 1
        row[1] += fate != "survived"
    table = Table("module", "broken", "caught")
    for name, (broken, caught) in sorted(counts.items()):
        table.add_row(name, str(broken), str(caught))
    return table


if __name__ == "__main__":
    sys.exit(command(run))
