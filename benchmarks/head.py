"""The unmasking head, block by block beside in one piece, at the sizes of two vocabularies.

Times are medians over rounds in which the contestants take turns. `plain` is the product
alone, [N, V] and nothing done with it; `reference` draws from it and measures it.
`tensor_mib` is the largest tensor a contestant makes.
"""

import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F

from dllm_kernels.head import pack_head
from dllm_kernels.head import unmask
from dllm_kernels.head.packed import BLOCK
from dllm_kernels.head.packed import ROWS
from progress import show
from progress import track

WIDTH = 576
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def rounds_of(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, taken in turns."""
    names = list(contestants)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in track(range(rounds + 1), "measuring"):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            began = time.perf_counter()
            contestants[name]()
            if turn:
                times[name].append(1000 * (time.perf_counter() - began))
    return {name: statistics.median(taken) for name, taken in times.items()}


def measure(rows: int, vocabulary: int, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """One row of the table: greedy and sampled, with the noise at hand."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, WIDTH, generator=generator).to(dtype)
    weight = (torch.randn(vocabulary, WIDTH, generator=generator) * WIDTH**-0.5).to(dtype)
    gumbel = -torch.log(-torch.log(torch.rand(rows, vocabulary, dtype=torch.float64, generator=generator)))
    drawn: dict[str, Any] = {"temperature": 0.7, "noise": gumbel}
    contestants: dict[str, Callable[[], Any]] = {"plain": partial(F.linear, hidden, weight)}
    for name in ("reference", "cpu"):
        contestants[name] = partial(unmask, hidden, weight, implementation=name)
        contestants[f"{name}_top_k_8"] = partial(unmask, hidden, weight, top_k=8, implementation=name)
        contestants[f"{name}_sampled"] = partial(unmask, hidden, weight, implementation=name, **drawn)
    if dtype == torch.bfloat16:
        contestants["cpu_packed"] = partial(unmask, hidden, weight, packed=pack_head(weight), implementation="cpu")
    found, expected = contestants["cpu"](), contestants["reference"]()
    return {
        "rows": rows,
        "vocabulary": vocabulary,
        "dtype": str(dtype).removeprefix("torch."),
        "milliseconds": {name: round(taken, 3) for name, taken in rounds_of(contestants, rounds).items()},
        "same_tokens": int((found.token == expected.token).sum()),
        "tensor_mib": {"reference": rows * vocabulary * 4 / 2**20, "cpu": ROWS * min(BLOCK, vocabulary) * 4 / 2**20},
    }


@click.command(help=__doc__)
@click.option("--json", "file", type=click.Path(path_type=Path), help="write the rows to this file")
@click.option("--rounds", default=15, show_default=True, help="measured turns")
@click.option("--threads", default=2, show_default=True)
@click.option("--rows", multiple=True, type=int, default=(16, 32), show_default=True, help="wanted positions")
@click.option("--vocabulary", multiple=True, type=int, default=(49152, 151936), show_default=True)
@click.option("--dtype", multiple=True, type=click.Choice(list(DTYPES)), default=tuple(DTYPES), show_default=True)
def main(
    file: Path | None,
    rounds: int,
    threads: int,
    rows: tuple[int, ...],
    vocabulary: tuple[int, ...],
    dtype: tuple[str, ...],
) -> None:
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    found: list[dict[str, Any]] = []
    for name, size, count in product(dtype, vocabulary, rows):
        row = measure(count, size, DTYPES[name], rounds)
        found.append(row)
        times = "  ".join(f"{name} {taken:.1f}" for name, taken in row["milliseconds"].items())
        show(f"{row['dtype']} N={row['rows']} V={row['vocabulary']}: {times} ms; same tokens {row['same_tokens']}")
        if file is not None:
            about = {"threads": threads, "torch": torch.__version__, "rows": found}
            file.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
