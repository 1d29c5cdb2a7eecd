"""A guard for the three plain package names: image, text and shared must be ours.

Such names are short to type and easy to shadow: a folder `image/` where Python was started, or
another distribution that also installs `text`, would be imported in their place and fail far from
the cause. The command calls `check_packages` before it imports a panel.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("image", "text", "shared")


class ShadowedPackage(ImportError):
    """A package of Diptych is missing, or something else answers to its name."""


def check_packages() -> None:
    """Check that `image`, `text` and `shared` lie beside this file's package; none is imported.

    Raises ShadowedPackage, which names the package, what was found instead, and what to do.
    """
    root = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        expected = root / name
        found = _places(name)
        if not found:
            raise ShadowedPackage(
                f"package `{name}` of Diptych was not found; expected {expected}. "
                "Install Diptych again: pip install --force-reinstall --no-deps diptych",
                name=name,
            )
        if found[0] != expected:
            raise ShadowedPackage(
                f"package `{name}` of Diptych is shadowed: Python finds {found[0]}, "
                f"expected {expected}. Run from another folder, take {found[0].parent} off "
                "PYTHONPATH, or uninstall the distribution that put it there "
                f"(`pip show --files NAME` lists what one installed).",
                name=name,
                path=str(found[0]),
            )


def _places(name: str) -> list[Path]:
    """Where `import name` leads: a package's folder(s) or a module's file; empty if nowhere."""
    spec = _spec(name)
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:  # a package, with or without __init__.py
        return [Path(place).resolve() for place in spec.submodule_search_locations]
    return [Path(spec.origin).resolve()] if spec.origin else []


def _spec(name: str) -> ModuleSpec | None:
    if name in sys.modules:  # find_spec raises when the spec of an imported module is None
        return sys.modules[name].__spec__
    return find_spec(name)
