"""What is fitted once for some data and settings, kept as names and arrays in the cache."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from shared.files import cache_dir, write_atomic, write_text

Fitted: TypeAlias = tuple[dict[str, list[str]], dict[str, NDArray[np.float32]]]


def fitted(kind: str, stated: Any, fit: Callable[[], Fitted]) -> Fitted:
    """What `fit` gives for what is stated, as plain values: from the cache, or now."""
    digest = hashlib.sha256(json.dumps([kind, stated]).encode()).hexdigest()[:12]
    folder = cache_dir() / f"text-{kind}-{digest}"
    try:
        names: Mapping[str, list[str]] = json.loads((folder / "names.json").read_text("utf-8"))
        return dict(names), load_file(folder / "weights.safetensors")
    except (OSError, ValueError, SafetensorError):  # none yet, or damaged
        names, arrays = fit()
    write_atomic(folder / "weights.safetensors", lambda path: save_file(arrays, path))
    write_text(folder / "names.json", json.dumps(names))
    return names, arrays
