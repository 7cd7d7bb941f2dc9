"""What the kernels are compiled for, and how. The build of a wheel imports this file alone, without torch."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).parent / "source"
#: Where a platform's wheel has its libraries, one for each instruction set of that kind of machine.
SHIPPED = Path(__file__).parent / "shipped"
FLAGS = (
    "-std=gnu++20",
    "-O3",
    "-fPIC",
    "-shared",
    "-pthread",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    # GCC 12 computes a tile's row addresses in vectors and then has no registers for two of its sums.
    "-fno-tree-slp-vectorize",
    "-Wall",
    "-Wno-uninitialized",
)


@dataclass(frozen=True, slots=True)
class Target:
    """An instruction set to compile for.

    :param machine: what :func:`platform.machine` says, in lower case.
    :param features: names in /proc/cpuinfo that a processor must have.
    :param flags: of the compiler.
    """

    machine: tuple[str, ...]
    features: frozenset[str]
    flags: tuple[str, ...]


_X86, _ARM = ("x86_64", "amd64"), ("aarch64", "arm64")
_V4 = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "fma"})
#: The best first. Without AVX-512 the same sources compile to AVX2, NEON or plain vectors.
TARGETS = {
    "avx512-bf16": Target(
        _X86, _V4 | {"avx512_bf16", "avx512_vnni"}, ("-march=x86-64-v4", "-mavx512bf16", "-mavx512vnni")
    ),
    "avx512": Target(_X86, _V4, ("-march=x86-64-v4",)),
    "avx2": Target(_X86, frozenset({"avx2", "fma"}), ("-march=x86-64-v3",)),
    "neon": Target(_ARM, frozenset(), ()),
}


@cache
def _print() -> str:
    """Changes with the sources and the flags, so that an old build is never loaded."""
    seen = hashlib.sha256(" ".join(FLAGS).encode())
    for path in sorted(SOURCES.iterdir()):
        seen.update(path.name.encode() + path.read_bytes())
    return seen.hexdigest()[:12]


def file_name(target: str) -> str:
    """Of the library of a target."""
    return f"dllm_kernels-{target}-{_print()}.so"


def command(compiler: str, target: str, out: Path) -> list[str]:
    """The call of the compiler for a target."""
    return [compiler, *FLAGS, *TARGETS[target].flags, "-o", str(out), str(SOURCES / "library.cpp")]
