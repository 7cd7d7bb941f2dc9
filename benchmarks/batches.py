"""Eight requests at once beside one after another, on random checkpoints of four families; and passes behind prefixes.

Rows `batch8_FAMILY` are transformers' own class with `batch_invariant=False`, as deep and wide as SmolLM2-135M;
`batch8_tiny_FAMILY` a tiny one, where Python is most of a pass, and `..._kernels` the block decoder where it computes
the family. The baseline is the same model of the same run, asked one request after another. Prompts have unequal
lengths, greedy. Whatever is computed takes its arithmetic: beside the ratio stands how many multiplications and
additions a second the layers' products of both sides make, and how many one large product of the same machine; where
one request alone is near that, company gains nothing.

`native_pass_p4096_vs_p128` is a pass over one block of transformers' class behind 4096 positions beside the same behind
128; `plain_...` the same with transformers' own attention and cache, and `attention_...` the attention of all layers by
itself, which is all that has to grow.
"""

import statistics
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.native import NativeDenoiser
from dllm_plugins.denoisers.native_cache import NativeCache
from dllm_plugins.denoisers.packed import attention
from gguf_bench.checkpoints import SHAPES
from gguf_bench.checkpoints import checkpoint
from harness import machine
from passes import Contestant
from passes import drawn
from passes import measured
from passes import medians
from passes import predict
from passes import put
from peers.diffusers_llada2 import Experts
from peers.diffusers_llada2 import llada2_folder
from progress import keep
from progress import show

FAMILIES = ("llada", "dream", "llada2", "sdar")
#: LLaDA2's mixtures of experts; of 135 million weights 26 million take part at a position, and the embedding.
EXPERTS = {
    "tiny": Experts(512, width=64, heads=4, kv_heads=2, layers=3, experts=16, chosen=4, groups=4, inner=32, dense=128),
    "135m": Experts(),
}
#: What a family's own sampler is asked to do: as many passes as tokens, or one block after another.
OPTIONS: dict[str, dict[str, Any]] = {"llada": {}, "dream": {}, "llada2": {}, "sdar": {"block_length": 4}}
#: What the checkpoint does not say.
SAID = {"llada2": {"preset": "llada2.0"}}
SHORTEST, LONGER = 12, 3
#: Prefixes of the passes, and the positions of the block.
LONG, SHORT, BLOCK = 4096, 128, 4


@dataclass(frozen=True, slots=True)
class Row:
    """A comparison; `ratio` above 1 is more tokens per second than the baseline, or how much longer a pass takes.

    :param passes: of all requests together, by the calls of the model they need: those of the longest one at once,
        the sum of all one by one.
    :param gflops: made a second by ours and by the baseline, in the products of layers.
    :param same: requests with the baseline's tokens.
    """

    name: str
    ours: float
    baseline: float
    unit: str
    ratio: float
    tokens: int = 0
    passes: int = 0
    baseline_passes: int = 0
    tokens_per_pass: float = 0.0
    gflops: float = 0.0
    baseline_gflops: float = 0.0
    product_gflops: float = 0.0
    same: str = ""


def folder_of(family: str, size: str, place: Path) -> Path:
    """A random checkpoint."""
    folder = place / f"{family}-{size}"
    folder.mkdir()
    if family == "llada2":
        return llada2_folder(folder, EXPERTS[size])
    return checkpoint(family, SHAPES[size], folder)


def requests_of(model: Model, family: str, count: int, tokens: int) -> list[Request]:
    """Prompts of unequal lengths; no answer ends early."""
    config = SamplingConfig(max_new_tokens=tokens, temperature=0.0, **OPTIONS[family])
    numbers = drawn(count * (SHORTEST + LONGER * count), model.denoiser.spec.vocabulary - 64)
    prompts = [[32 + token for token in numbers[place::count]][: SHORTEST + LONGER * place] for place in range(count)]
    return [Request(prompt, config, stop_ids=frozenset()) for prompt in prompts]


def at_once(model: Model, requests: Sequence[Request]) -> list[Any]:
    """All in the same passes."""
    return model.engine().generate(requests)


def one_by_one(model: Model, requests: Sequence[Request]) -> list[Any]:
    """Each when the one before is done."""
    return [model.engine().generate([request])[0] for request in requests]


@dataclass(frozen=True, slots=True)
class Setting:
    """How both sides are asked.

    :param count: requests.
    :param tokens: of each answer.
    :param clock: what tells seconds: those of the process leave out what other programs of the machine took.
    """

    count: int = 8
    tokens: int = 16
    rounds: int = 1
    clock: Callable[[], float] = time.perf_counter


def waited(run: Callable[[], Any], clock: Callable[[], float]) -> tuple[float, Any]:
    """Seconds, with what the device still had to do, and the result."""
    began = clock()
    found = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - began, found


def compared(name: str, model: Model, requests: Sequence[Request], how: Setting, product: float, each: float) -> Row:
    """The two in turns, after two requests that warm up.

    :param product: GFLOP a second of one product.
    :param each: GFLOP of the layers' products at one position; 0 if unknown.
    """
    sides: dict[str, Callable[[], list[Any]]] = {
        "once": lambda: at_once(model, requests),
        "apart": lambda: one_by_one(model, requests),
    }
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    found: dict[str, list[Any]] = {}
    at_once(model, requests[:2])
    for _ in range(how.rounds):
        for side, run in sides.items():
            taken, found[side] = waited(run, how.clock)
            seconds[side].append(taken)
    work = {side: each * sum(finish.usage.rows for finish in done) for side, done in found.items()}
    once, apart = statistics.median(seconds["once"]), statistics.median(seconds["apart"])
    tokens = sum(len(finish.tokens) for finish in found["once"])
    passes = max(finish.usage.total_passes for finish in found["once"])
    same = sum(one.tokens == other.tokens for one, other in zip(found["once"], found["apart"], strict=True))
    return Row(
        name=name,
        ours=round(tokens / once, 1),
        baseline=round(tokens / apart, 1),
        unit="tokens/s",
        ratio=round(apart / once, 2),
        tokens=tokens,
        passes=passes,
        baseline_passes=sum(finish.usage.total_passes for finish in found["apart"]),
        tokens_per_pass=round(tokens / passes, 2),
        gflops=round(work["once"] / once, 3),
        baseline_gflops=round(work["apart"] / apart, 3),
        product_gflops=round(product, 1),
        same=f"{same} of {len(requests)}",
    )


def best_product(device: torch.device, dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """GFLOP a second of one product of 512 rows by the 135M shape's widest matrix, the best of ten."""
    width, inner = SHAPES["135m"].width, SHAPES["135m"].inner
    x, weight = (torch.randn(rows, width, dtype=dtype, device=device) for rows in (512, inner))
    taken = min(waited(lambda: torch.nn.functional.linear(x, weight), clock)[0] for _ in range(10))
    return 2 * 512 * width * inner / taken / 1e9


@torch.inference_mode()
def work_of(model: Any) -> float:
    """GFLOP of the layers' products at one position of a class of transformers."""
    with FlopCounterMode(display=False) as counter:
        model.base_model(input_ids=torch.tensor([drawn(BLOCK, 64)], device=model.device), use_cache=False)
    return float(counter.get_total_flops()) / BLOCK / 1e9


def batches(family: str, size: str, place: Path, how: Setting, load: dict[str, Any]) -> Iterator[Row]:
    """Rows of one checkpoint: transformers' class, and what is taken without a word where that is another."""
    folder = str(folder_of(family, size, place))
    name = f"batch{how.count}_{'tiny_' if size == 'tiny' else ''}{family}"
    product = each = 0.0
    for backend in ("torch", "auto"):
        model = load_model(folder, backend=backend, batch_invariant=False, **SAID.get(family, {}), **load)
        native: Any = model.denoiser if isinstance(model.denoiser, NativeDenoiser) else None
        requests = requests_of(model, family, how.count, how.tokens)
        if native and backend == "torch":
            product, each = best_product(native.model.device, native.model.dtype, how.clock), work_of(native.model)
            yield compared(name, model, requests, how, product, each)
        elif not native:
            yield compared(f"{name}_kernels", model, requests, how, product, each)


def one_block(denoiser: NativeDenoiser, prefix: int) -> Any:
    """A pass over a block behind a prefix of random keys, with its head."""
    shape, kept = SHAPES["135m"], NativeCache()
    kept.reserve(prefix)
    for layer in range(shape.layers):
        keys, values = torch.randn(2, shape.kv_heads, prefix, shape.head)
        kept.write(layer, keys, values, 0)
    kept.pend(prefix)
    kept.freeze(prefix)
    row, places = denoiser.open_row(kept, prefix), range(prefix, prefix + BLOCK)
    tokens = drawn(BLOCK, shape.vocabulary)
    return predict(denoiser, [Segment(row, tokens, places, causal=False, wanted=range(BLOCK))])


def attention_alone(prefix: int) -> Callable[[], Any]:
    """Attention of all layers of the 135M shape, over keys where they lie."""
    shape = SHAPES["135m"]
    q = torch.randn(shape.heads, BLOCK, shape.head)
    stores = [[torch.randn(shape.kv_heads, prefix + BLOCK, shape.head) for _ in "kv"] for _ in range(shape.layers)]

    @torch.inference_mode()
    def run() -> None:
        for keys, values in stores:
            attention(q, keys, values, None, None)

    return run


def passes(place: Path, rounds: int) -> Iterator[Row]:
    """Rows about prefixes, of an SDAR on the CPU in float32."""
    folder = str(checkpoint("sdar", SHAPES["135m"], place))
    ours: Any = load_model(folder, backend="torch", device="cpu", dtype="float32").denoiser
    plain = NativeDenoiser(ours.model, ours.spec, plain=True)
    runs: dict[str, Callable[[], Any]] = {}
    for prefix in (LONG, SHORT):
        runs[f"native_{prefix}"] = one_block(ours, prefix)
        runs[f"plain_{prefix}"] = one_block(plain, prefix)
        runs[f"attention_{prefix}"] = attention_alone(prefix)
    found = medians({name: Contestant(run) for name, run in runs.items()}, rounds)
    for name in ("native_pass", "plain_pass", "attention"):
        long, short = (found[f"{name.removesuffix('_pass')}_{prefix}"] for prefix in (LONG, SHORT))
        yield Row(f"{name}_p{LONG}_vs_p{SHORT}", round(long, 2), round(short, 2), "ms", round(long / short, 2))
    long, other = found[f"native_{LONG}"], found[f"plain_{LONG}"]
    yield Row(f"native_vs_plain_pass_p{LONG}", round(long, 2), round(other, 2), "ms", round(other / long, 2))


def table(found: Sequence[Row]) -> str:
    """Rows in Markdown."""
    lines = [
        "| row | ours | baseline | ratio | tokens | passes | tokens/pass | GFLOP/s | one product | same tokens |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        speeds = f"{row.ours} {row.unit} | {row.baseline} {row.unit} | {row.ratio:.2f}"
        if not row.tokens:
            lines.append(f"| {row.name} | {speeds} | | | | | | |")
            continue
        counts = f"{row.tokens} | {row.passes}, {row.baseline_passes} | {row.tokens_per_pass:.2f}"
        work = f"{row.gflops:.3g}, {row.baseline_gflops:.3g} | {row.product_gflops:.3g}"
        lines.append(f"| {row.name} | {speeds} | {counts} | {work if row.gflops else ' | '} | {row.same} |")
    return "\n".join(lines)


@click.command()
@click.option("--family", "families", type=click.Choice(FAMILIES), multiple=True, default=FAMILIES)
@click.option("--size", "sizes", type=click.Choice(tuple(SHAPES)), multiple=True, default=tuple(SHAPES))
@click.option("--requests", "count", default=8, show_default=True, help="At once.")
@click.option("--tokens", default=16, show_default=True, help="Of each answer.")
@click.option("--rounds", default=3, show_default=True, help="Medians are over this many.")
@click.option("--process-time", is_flag=True, help="Seconds of this process, on a machine that others use.")
@click.option("--prefixes/--no-prefixes", default=True, show_default=True, help="Also passes behind prefixes.")
@click.option("--device", default="auto", show_default=True)
@click.option("--dtype", default="float32", show_default=True)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows here.")
@click.option("--markdown", "page", type=click.Path(path_type=Path), help="Put the table into this page.")
def main(
    families: tuple[str, ...],
    sizes: tuple[str, ...],
    count: int,
    tokens: int,
    rounds: int,
    process_time: bool,
    prefixes: bool,
    device: str,
    dtype: str,
    path: Path | None,
    page: Path | None,
) -> None:
    """Measure and print a table."""
    show(machine())
    found: list[Row] = []
    how = Setting(count, tokens, rounds, time.process_time if process_time else time.perf_counter)
    load = {"device": device, "dtype": dtype}
    with TemporaryDirectory() as place:

        def rows() -> Iterator[Row]:
            for size in sizes:
                for family in families:
                    yield from batches(family, size, Path(place), how, load)
            if prefixes:
                (Path(place) / "passes").mkdir()
                yield from passes(Path(place) / "passes", 4 * rounds)

        for row in rows():
            found.append(row)
            show(f"{row.name}: {row.ours} {row.unit}, baseline {row.baseline}, ratio {row.ratio:.2f} {row.same}")
            keep(found, path)
    show("", table(found))
    if page is not None:
        seconds = ", seconds of the process" if process_time else ""
        head = f"{measured()} {count} requests of {tokens} tokens, {rounds} rounds, {dtype}{seconds}."
        put(page, "batches", f"{head}\n\n{table(found)}")


if __name__ == "__main__":
    main()
