"""Finding and loading the compiled kernels."""

import ctypes
import os
import platform
from functools import cache
from pathlib import Path

import platformdirs

from dllm_kernels.compiled import structures
from dllm_kernels.compiled.targets import SHIPPED
from dllm_kernels.compiled.targets import TARGETS
from dllm_kernels.compiled.targets import file_name
from dllm_kernels.dispatch import KernelError

BUILD = "python -m dllm_kernels.build"
#: Of the distribution, which calls the former.
SETUP = "python -m dllm_plugins setup"
#: What a function returns where an allocation failed; Outcome in source/library.cpp.
NO_MEMORY = 1


@cache
def _features() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    lines = (line.partition(":") for line in text.splitlines())
    return frozenset(
        word for name, _, words in lines if name.strip() in ("flags", "Features") for word in words.split()
    )


def best_target() -> str:
    """The best instruction set this machine has.

    :raises KernelError: for a machine we do not compile for.
    """
    machine = platform.machine().lower()
    for name, target in TARGETS.items():
        if machine in target.machine and target.features <= _features():
            return name
    raise KernelError(f"the compiled kernels know {', '.join(TARGETS)}, not this machine ({machine}); PyTorch serves")


def folder() -> Path:
    """Where builds are: what DLLM_KERNELS names, else the user's cache."""
    chosen = os.environ.get("DLLM_KERNELS")
    return Path(chosen) if chosen else platformdirs.user_cache_path("dllm-plugins") / "kernels"


def place(target: str) -> Path:
    """The library of a target: the one that came with a platform's wheel, else where it is built.

    A folder that DLLM_KERNELS names comes before both.
    """
    shipped = SHIPPED / file_name(target)
    return shipped if shipped.exists() and not os.environ.get("DLLM_KERNELS") else folder() / file_name(target)


@cache
def load() -> ctypes.CDLL:
    """The compiled kernels.

    :raises KernelError: if they were not built, or cannot be loaded, with what mends it.
    """
    path = place(best_target())
    if not path.exists():
        raise KernelError(f"was not built; run `{SETUP}`, which builds it where there is a C++ compiler")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelError(f"{path} cannot be loaded ({error}); remove it and run `{BUILD}`") from error
    structures.declare(library)
    share_threads(library)
    return library


def share_threads(library: ctypes.CDLL) -> None:
    """Compute on torch's OpenMP threads where they can be found; else on threads of our own."""
    # torch's OpenMP library was loaded with torch, which all of this package imports.
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    paths = sorted({line.split(maxsplit=5)[-1] for line in lines if "libgomp" in line})
    for path in paths:
        # Several may be loaded; torch's own lies beside it.
        if len(paths) > 1 and "torch" not in path:
            continue
        openmp = ctypes.CDLL(path)
        names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
        library.dllm_use_openmp(*(ctypes.cast(getattr(openmp, name), ctypes.c_void_p) for name in names))
        return


def raise_for(outcome: int, what: str) -> None:
    """Turn what a function of the library returned into an exception; 0 is none.

    :param what: was computed, and how much of it: "a pass over 9 positions".
    :raises MemoryError: if an allocation failed, in any of its threads.
    :raises KernelError: if something else did.
    """
    if outcome == NO_MEMORY:
        raise MemoryError(f"no memory for {what}; ask for less at once")
    if outcome:
        said = load().dllm_said().decode(errors="replace")
        raise KernelError(f"the compiled kernels failed in {what} ({said}); set DLLM_KERNELS='' to do without them")


def trim() -> None:
    """Freed memory goes back to the system; glibc keeps it otherwise, 200 MB for the default model."""
    found = getattr(load(), "malloc_trim", None)
    if found is not None:
        found(0)


def why_not() -> str | None:
    """Why the compiled kernels cannot be used; None if they can."""
    if os.environ.get("DLLM_KERNELS") == "":
        return "is switched off by DLLM_KERNELS='' in the environment"
    try:
        load()
    except KernelError as error:
        load.cache_clear()
        return str(error)
    return None
