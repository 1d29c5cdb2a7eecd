"""Where a number comes from: the commit, the machine and the versions that made it."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
PACKAGES = (
    "diptych",
    "torch",
    "deepspeed",
    "transformers",
    "diffusers",
    "datasets",
    "sacrebleu",
)
PARTS = ("shared", "image", "text")
FAST = ("avx512f", "avx512_bf16", "amx_bf16")  # what the speed of a CPU's products depends on


def provenance() -> dict[str, str]:
    """Commit, machine, and the versions of Python and of the packages by name."""
    return {"commit": commit(), "machine": machine()} | versions()


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def machine() -> str:
    """The GPU, or how many cores of which CPU with which of the fast instructions."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cores = len(os.sched_getaffinity(0))
    except (OSError, AttributeError):  # no Linux
        return f"{os.cpu_count()} cores of {platform.processor() or platform.machine()}"
    found = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    flags = set(found.get("flags", "").split())
    fast = ", ".join(name for name in FAST if name in flags) or "no AVX-512"
    return f"{cores} cores of {found.get('model name', platform.machine())} ({fast})"


def commit() -> str:
    """The checkout's commit, with a word when the packages differ from it; "release" outside one,
    where the version of diptych says all."""
    if not (ROOT / ".git").exists():
        return "release"
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", *PARTS)
    return (head or "unknown") + (" with changes" if changed else "")


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    except OSError:  # git is not installed
        return ""
    return done.stdout.strip()
