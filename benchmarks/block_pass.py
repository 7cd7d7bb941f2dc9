"""What a pass over a block costs: the block decoder beside transformers' own class, in one run.

Random weights of a Qwen3 shape with about 135 million of them; one row of 16 open positions
behind a prefix, with the head over all 16. The contestants take turns, so that all share
the machine's moods; medians. Rows are named CONTESTANT_vs_BASELINE, `ratio` is the
baseline's time over ours.
"""

import copy
import json
import statistics
import time
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from transformers import Qwen3Config
from transformers import Qwen3ForCausalLM

from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.kernel import KernelDenoiser
from dllm_plugins.denoisers.native import NativeDenoiser
from harness import machine

VOCABULARY = 49_152
SPEC = ModelSpec(
    name="random Qwen3",
    vocabulary=VOCABULARY,
    mask_id=VOCABULARY - 1,
    context=8192,
    stop_ids=frozenset(),
    block_length=16,
    draft_length=0,
    modes=("diffusion",),
    chain=False,
    cache="exact",
    numerics="approximate",
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row. Milliseconds are medians; `same` says whether both choose the same tokens."""

    name: str
    ours: float
    baseline: float
    ratio: float
    unit: str
    rows: int
    prefix: int
    dtype: str
    threads: int
    weights: int
    same: bool


def network(dtype: torch.dtype) -> Qwen3ForCausalLM:
    """As deep and wide as SmolLM2-135M, with norms of query and key heads."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    # transformers leaves its constructors and `to` untyped.
    model: Any = Qwen3ForCausalLM(config)
    found: Qwen3ForCausalLM = model.to(dtype).eval()
    return found


def ready(denoiser: Denoiser, rows: int, prefix: int) -> Callable[[], torch.Tensor]:
    """A predict pass behind a frozen prefix, as often as wanted; returns the tokens it would choose."""
    drawn = torch.randint(0, VOCABULARY, (prefix + rows,), generator=torch.Generator().manual_seed(1)).tolist()
    row = denoiser.open_row()
    denoiser.forward([Segment(row, drawn[:prefix], range(prefix))])
    denoiser.freeze(row, prefix)
    places = range(prefix, prefix + rows)
    block = Segment(row, drawn[prefix:], places, noisy=True, causal=False, wanted=range(rows))
    return lambda: denoiser.logits(denoiser.forward([block])[0]).argmax(-1)


def medians(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds of each, in turns."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 2):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            if turn > 1:
                taken[name].append(1000 * (time.perf_counter() - began))
    return {name: statistics.median(times) for name, times in taken.items()}


def compared(dtype: torch.dtype, rows: int, prefix: int, rounds: int) -> Comparison:
    """The block decoder and transformers' class with the same weights."""
    model = network(dtype)
    native = ready(NativeDenoiser(copy.deepcopy(model), SPEC), rows, prefix)
    ours = ready(KernelDenoiser(model, SPEC), rows, prefix)
    found = medians({"kernels": ours, "native": native}, rounds)
    return Comparison(
        name=f"kernels_vs_native/{str(dtype).removeprefix('torch.')}",
        ours=round(found["kernels"], 3),
        baseline=round(found["native"], 3),
        ratio=round(found["native"] / found["kernels"], 3),
        unit="ms/pass",
        rows=rows,
        prefix=prefix,
        dtype=str(dtype),
        threads=torch.get_num_threads(),
        weights=sum(weight.numel() for weight in model.parameters()),
        same=torch.equal(ours(), native()),
    )


@click.command()
@click.option("--rows", default=16, show_default=True, help="Open positions of a pass.")
@click.option("--prefix", default=256, show_default=True, help="Frozen positions.")
@click.option("--rounds", default=30, show_default=True, help="Timed passes of each contestant.")
@click.option("--threads", default=2, show_default=True)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Also write the rows here.")
def main(rows: int, prefix: int, rounds: int, threads: int, path: Path | None) -> None:
    """Print a table of medians and ratios."""
    torch.set_num_threads(threads)
    found = [compared(dtype, rows, prefix, rounds) for dtype in (torch.bfloat16, torch.float32)]
    print(machine())
    print()
    print("| row | ours | baseline | ratio | same tokens |")
    print("|---|---|---|---|---|")
    for row in found:
        print(f"| {row.name} | {row.ours:.1f} ms | {row.baseline:.1f} ms | {row.ratio:.2f} | {row.same} |")
    if path is not None:
        path.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
