"""Build the compiled kernels: `python -m dllm_kernels.build`.

One shared library per instruction set and version of the sources, in the user's cache
(or in the folder that DLLM_KERNELS names). It needs a C++20 compiler and a few seconds;
neither Python's nor torch's headers, so updates of those need no new build.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
from filelock import FileLock

from dllm_kernels.compiled.library import best_target
from dllm_kernels.compiled.library import folder
from dllm_kernels.compiled.library import place
from dllm_kernels.compiled.targets import TARGETS
from dllm_kernels.compiled.targets import command
from dllm_kernels.dispatch import KernelError

COMPILERS = ("g++", "clang++", "c++")


def compiler() -> str:
    """The C++ compiler: what CXX names, else the first that is installed.

    :raises KernelError: if there is none.
    """
    chosen = os.environ.get("CXX")
    for name in (chosen,) if chosen else COMPILERS:
        if found := shutil.which(name):
            return found
    wanted = f"CXX={chosen!r} was not found" if chosen else f"no C++ compiler was found ({', '.join(COMPILERS)})"
    raise KernelError(f"{wanted}; install one (Debian, Ubuntu: apt install g++), or go on without: PyTorch serves")


def build(target: str) -> Path:
    """Compile for one instruction set of :data:`TARGETS`; returns where the library is.

    Of several processes one compiles, and the others wait for it.

    :raises KernelError: if there is no compiler, or it fails, with the end of its output.
    """
    out = place(target)
    out.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(out.with_name(".lock")):
        if not out.exists():
            _compile(target, out)
    return out


def _compile(target: str, out: Path) -> None:
    # In one step, so that nobody ever loads half a file. What a killed process left is written over.
    part = out.with_name(f".{out.name}.part")
    call = command(compiler(), target, part)
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        part.unlink(missing_ok=True)
        raise KernelError(f"{call[0]} failed:\n{done.stderr[-2000:]}\nIt was called so: {' '.join(call)}")
    part.replace(out)


@click.command()
@click.option("--target", type=click.Choice(sorted(TARGETS)), help="Instruction set; if left out, this machine's best.")
@click.option("--if-possible", is_flag=True, help="Where it cannot be built, say why and succeed.")
def main(target: str | None, if_possible: bool) -> None:
    """Build the compiled kernels for this machine; without them PyTorch computes, slower."""
    try:
        chosen = target or best_target()
        if place(chosen).exists():
            click.echo(f"compiled kernels for {chosen} are in {folder()} already")
        else:
            click.echo(f"compiled kernels for {chosen}: {build(chosen)}")
    except (KernelError, OSError) as error:
        click.echo(f"compiled kernels were not built: {error}", err=True)
        if not if_possible:
            sys.exit(1)


if __name__ == "__main__":
    main()
