"""The command line of benchmarks/gguf_files.py."""

import importlib.util
import os
from collections.abc import Iterator
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch

from dllm_plugins.llama_cpp.convert import QUANTS
from gguf_bench.checkpoints import ARCHITECTURES
from gguf_bench.checkpoints import SHAPES
from gguf_bench.cli import MISSING
from gguf_bench.contest import MAIN
from gguf_bench.contest import Case
from gguf_bench.contest import rows
from gguf_bench.default import default_rows
from gguf_bench.turns import HEAD
from gguf_bench.turns import Row
from gguf_bench.turns import line
from passes import measured
from passes import put
from progress import keep
from progress import say
from progress import show


def limit(threads: int) -> None:
    """Let this process and its children use no more processors than that.

    :raises click.BadParameter: if there are fewer, or the system cannot.
    """
    if not hasattr(os, "sched_setaffinity"):
        if threads != os.cpu_count():
            raise click.BadParameter(f"{threads}: this system cannot limit a program", param_hint="--threads")
    elif threads > len(mine := sorted(os.sched_getaffinity(0))):
        raise click.BadParameter(f"{threads} threads on {len(mine)} processors", param_hint="--threads")
    else:
        os.sched_setaffinity(0, mine[:threads])
    torch.set_num_threads(threads)


def cases(
    architectures: Sequence[str],
    sizes: Sequence[str],
    quants: Sequence[str],
    program: Path | None,
    numbers: dict[str, int],
) -> Iterator[Row]:
    """Rows of one file after the other; each in a folder of its own, which also holds our cache meanwhile."""
    before = os.environ.get("DLLM_CACHE")
    for size, quant, architecture in product(sizes, quants, architectures):
        with TemporaryDirectory() as place:
            os.environ["DLLM_CACHE"] = place
            try:
                yield from rows(Case(architecture, size, quant, program=program, folder=Path(place), **numbers))
            finally:
                del os.environ["DLLM_CACHE"]
                if before is not None:
                    os.environ["DLLM_CACHE"] = before


@click.command(help=f"GGUF files through llama.cpp beside {', '.join(MAIN)}.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows here.")
@click.option("--markdown", "page", type=click.Path(path_type=Path), help="Put the table into this page.")
@click.option(
    "--diffusion-cli",
    "program",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="llama.cpp's llama-diffusion-cli.",
)
@click.option(
    "--architecture", "architectures", multiple=True, type=click.Choice(ARCHITECTURES), help="All if not given."
)
@click.option("--size", "sizes", multiple=True, type=click.Choice(list(SHAPES)), help="All if not given.")
@click.option("--quant", "quants", multiple=True, type=click.Choice(list(QUANTS)), help="BF16 if not given.")
@click.option("--prompt", default=256, show_default=True, type=click.IntRange(min=1), help="Tokens of the prompt.")
@click.option("--new", default=128, show_default=True, type=click.IntRange(min=1), help="New tokens.")
@click.option("--block", default=32, show_default=True, type=click.IntRange(min=1), help="Of dream and llada.")
@click.option("--steps", default=32, show_default=True, type=click.IntRange(min=1), help="Passes over such a block.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Timed calls of each side.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--default-model", is_flag=True, help="Instead: the shipped model on every backend and quantisation.")
def main(
    path: Path | None,
    page: Path | None,
    program: Path | None,
    architectures: tuple[str, ...],
    sizes: tuple[str, ...],
    quants: tuple[str, ...],
    default_model: bool,
    **numbers: int,
) -> None:
    """Measure and print a table."""
    if importlib.util.find_spec("llama_cpp") is None:
        raise click.ClickException("llama-cpp-python is not installed; pip install 'dllm-plugins[gguf]'")
    limit(numbers["threads"])
    if default_model:
        unused = {"--diffusion-cli": program, "--architecture": architectures, "--size": sizes}
        for option, value in unused.items():
            if value:
                raise click.UsageError(f"{option} is of no use with --default-model; leave it out")
        made = default_rows(quants or ("BF16", "Q8_0", "Q4_0"), numbers["new"], numbers["rounds"])
    else:
        if program is None:
            say(f"skipped llama_diffusion_cli: {MISSING}")
        made = cases(architectures or ARCHITECTURES, sizes or tuple(SHAPES), quants or ("BF16",), program, numbers)
    found: list[Row] = []
    lines = [measured(), "", *HEAD]
    show(*lines)
    keep(found, path)
    for row in made:
        found.append(row)
        lines.append(line(row))
        show(lines[-1])
        keep(found, path)
    if page is not None:
        put(page, "gguf-default" if default_model else "gguf", "\n".join(lines))
