"""What long requests cost in anonymous resident memory, each measured in a process of its own.

Counted are the weights, as many bytes as their dtype needs, and the keys and values of
every position, as many as theirs needs; all above that is overhead. Weights are
dequantised: those in the file's own blocks are mapped from it for the most part, and not anonymous. What
Python holds once torch and this package are imported is told apart. Read from
/proc/self/smaps_rollup once the rows hold all their tokens, and every 20 ms on the way there.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import click
import torch

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.default_model.base_model import require_base
from dllm_plugins.default_model.load import shipped_denoiser
from dllm_plugins.denoisers.weights import LlamaShape
from dllm_plugins.files.replacing import read_config
from passes import backend_of
from passes import default_model
from passes import drawn
from passes import measured
from passes import put
from progress import keep
from progress import show
from progress import track

ROLLUP = Path("/proc/self/smaps_rollup")
#: Tokens that are decoded; the others are the prompt.
NEW = 16


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes.

    :param imported: anonymous, before anything is loaded.
    :param loaded: anonymous, with the model.
    :param held: anonymous, once the rows are full.
    :param peak: the most anonymous on the way.
    :param overhead: `held` less `imported` over `weights` + `keys`, less 1.
    :param overhead_with_imports: the same of all that is held.
    """

    name: str
    rows: int
    tokens: int
    dtype: str
    backend: str
    threads: int
    weights: int
    keys: int
    imported: int
    loaded: int
    held: int
    peak: int
    overhead: float
    overhead_with_imports: float


def anonymous() -> int:
    """Anonymous resident bytes of this process."""
    found = next(line for line in ROLLUP.read_text(encoding="ascii").splitlines() if line.startswith("Anonymous:"))
    return int(found.split()[1]) * 1024


@contextmanager
def watched() -> Iterator[list[int]]:
    """The most anonymous bytes seen, in a list of one."""
    most, going = [anonymous()], threading.Event()

    def watch() -> None:
        while not going.wait(0.02):
            most[0] = max(most[0], anonymous())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        going.set()
        thread.join()
        most[0] = max(most[0], anonymous())


def numbers() -> int:
    """How many numbers the base and the denoiser hold; tied embeddings once."""
    from safetensors import safe_open

    found = 0
    for path in [*require_base().glob("*.safetensors"), shipped_denoiser()]:
        with safe_open(path, framework="pt") as file:
            # Ids of the shortlist are no weights.
            names = [name for name in file.keys() if name not in ("draft_tokens", "lm_head.weight")]  # noqa: SIM118
            for name in names:
                size = 1
                for length in file.get_slice(name).get_shape():
                    size *= length
                found += size
    return found


def run(rows: int, tokens: int, dtype: str, backend: str | None) -> Memory:
    """Decode in the engine, all rows together, until one of them is about to be full."""
    imported = anonymous()
    with watched() as most:
        model = default_model(dtype, backend, "dequantised")
        loaded = anonymous()
        text = drawn(tokens - NEW, model.denoiser.spec.vocabulary)
        config = SamplingConfig(mode="ar", max_new_tokens=NEW)
        engine = model.engine()
        for _ in range(rows):
            engine.admit(Request(text, config, stop_ids=frozenset()))
        for _ in range(NEW - 1):
            engine.step()
        held = anonymous()
    assert len(engine.active) == rows, "a row is done and has given its memory back"
    shape = LlamaShape.from_config(read_config(require_base()))
    weight = torch.finfo(getattr(torch, dtype)).bits // 8
    keys = 2 * shape.layers * shape.kv_heads * shape.head_dim * rows * tokens * weight
    weights = numbers() * weight
    return Memory(
        name=f"memory/rows{rows}tokens{tokens}/{dtype}",
        rows=rows,
        tokens=tokens,
        dtype=dtype,
        backend=backend_of(backend),
        threads=torch.get_num_threads(),
        weights=weights,
        keys=keys,
        imported=imported,
        loaded=loaded,
        held=held,
        peak=most[0],
        overhead=round((held - imported) / (weights + keys) - 1, 4),
        overhead_with_imports=round(held / (weights + keys) - 1, 4),
    )


HEAD = (
    "| rows x tokens | dtype | weights | keys and values | imports | held | overhead | with imports | peak |",
    "|---|---|---|---|---|---|---|---|---|",
)


def line(item: Memory) -> str:
    """A row of the table, in bytes."""
    return (
        f"| {item.rows} x {item.tokens:,} | {item.dtype} | {item.weights:,} | {item.keys:,} | {item.imported:,} | "
        f"{item.held:,} | {item.overhead:+.1%} | {item.overhead_with_imports:+.1%} | {item.peak:,} |"
    )


@click.command(help=__doc__)
@click.option("--rows", multiple=True, type=int, default=(1, 8), show_default=True)
@click.option("--tokens", multiple=True, type=int, default=(4096,), show_default=True, help="Positions a row holds.")
@click.option("--dtype", multiple=True, default=("bfloat16",), show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--backend", help="Of the default model; the kernels, where they serve it, if left out.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows here.")
@click.option("--markdown", "page", type=click.Path(path_type=Path), help="Put the table into this page.")
@click.option("--here", is_flag=True, help="Measure in this process and print JSON; for one setting.")
def main(
    rows: tuple[int, ...],
    tokens: tuple[int, ...],
    dtype: tuple[str, ...],
    threads: int,
    backend: str | None,
    path: Path | None,
    page: Path | None,
    here: bool,
) -> None:
    if not ROLLUP.exists():
        raise click.ClickException(f"{ROLLUP} does not exist; anonymous memory can only be read on Linux")
    torch.set_num_threads(threads)
    if here:
        click.echo(json.dumps(asdict(run(rows[0], tokens[0], dtype[0], backend))))
        return
    found: list[Memory] = []
    lines = [measured(), "", *HEAD]
    show(*lines)
    keep(found, path)
    for setting in track(list(product(dtype, tokens, rows)), "measuring"):
        options = [f"--{key}={value}" for key, value in zip(("dtype", "tokens", "rows"), setting, strict=True)]
        options += [f"--threads={threads}", *([] if backend is None else [f"--backend={backend}"])]
        done = subprocess.run([sys.executable, __file__, "--here", *options], stdout=subprocess.PIPE, check=True)
        found.append(Memory(**json.loads(done.stdout)))
        lines.append(line(found[-1]))
        show(lines[-1])
        keep(found, path)
    if page is not None:
        put(page, "memory", "\n".join(lines))


if __name__ == "__main__":
    main()
