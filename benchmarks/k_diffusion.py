"""k-diffusion's solvers without the rest of its package, which imports training libraries."""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

NAME = "k_diffusion_alone"


def k_sampling() -> ModuleType | None:
    """`k_diffusion.sampling`, or None where it or torchsde, which it imports, is not installed.

    `pip install --no-deps k-diffusion torchsde trampoline` is enough.
    """
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None or not spec.submodule_search_locations:
        return None
    if importlib.util.find_spec("torchsde") is None:
        return None
    if f"{NAME}.sampling" in sys.modules:
        return sys.modules[f"{NAME}.sampling"]
    folder = spec.submodule_search_locations[0]
    package: Any = ModuleType(NAME)
    package.__path__ = [folder]
    package.utils = SimpleNamespace(
        append_dims=lambda x, ndim: x.reshape(x.shape + (1,) * (ndim - x.ndim))
    )
    sys.modules |= {NAME: package, f"{NAME}.utils": package.utils}
    found = importlib.util.spec_from_file_location(f"{NAME}.sampling", f"{folder}/sampling.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    sys.modules[f"{NAME}.sampling"] = module
    return module
