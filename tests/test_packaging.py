"""The plain package names are guarded, and imports say in full where they lead."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from shared.guard import PACKAGES, check_packages

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def check_with_first_on_path(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the guard in a fresh interpreter that searches `folder` before everything else."""
    code = (
        f"import sys; sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]\n"
        "from shared.guard import check_packages; check_packages()"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60
    )


def test_guard_accepts_our_own_packages():
    check_packages()


def test_guard_accepts_a_folder_without_packages_first_on_the_path(tmp_path: Path):
    (tmp_path / "pictures").mkdir()
    result = check_with_first_on_path(tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("shadow", ["image/__init__.py", "text/__init__.py", "text.py"])
def test_guard_names_what_shadows_a_package_where_it_lies_and_what_to_do(
    tmp_path: Path, shadow: str
):
    fake = tmp_path / shadow
    fake.parent.mkdir(exist_ok=True)
    fake.write_text("raise RuntimeError('the guard must not import what it checks')\n")
    result = check_with_first_on_path(tmp_path)
    name = Path(shadow).parts[0].removesuffix(".py")
    lies_at = fake.parent if fake.name == "__init__.py" else fake
    assert result.returncode != 0
    assert f"ShadowedPackage: package `{name}` of Diptych is shadowed" in result.stderr
    assert str(lies_at.resolve()) in result.stderr
    assert "uninstall" in result.stderr
    assert "Run from another folder" in result.stderr


def test_there_are_sources_to_check():
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(PACKAGES)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_are_absolute(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    relative = [
        node.lineno for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == [], f"{path}: relative imports on lines {relative}; import by full path"
