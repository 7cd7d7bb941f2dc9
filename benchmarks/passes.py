"""What benchmarks of single passes share: the default model, a pass over a block, turns, tables in pages."""

import os
import re
import statistics
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dllm_plugins import Model
from dllm_plugins import load_model
from dllm_plugins import plugins
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import Segment
from harness import machine
from progress import track

#: Tokens of one pass while a prefix is filled.
STRIDE = 512
#: Seconds between two contestants: idle threads of the one before stop waiting for work.
PAUSE = 0.01


#: Makes a pass and gives logits [N, V].
Pass = Callable[[], Tensor]


def backend_of(chosen: str | None) -> str:
    """The chosen backend of the default model, else the kernels where they serve it."""
    return chosen or ("kernels" if "kernels" in plugins.backends() else "torch")


def default_model(dtype: str, backend: str | None, weights: str = "auto") -> Model:
    """The default model on the CPU."""
    return load_model("dllm", dtype=dtype, device="cpu", backend=backend_of(backend), weights=weights)


def seeded(seed: int) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def drawn(count: int, vocabulary: int) -> list[int]:
    """Token ids, the same every time."""
    return [int(token) for token in torch.randint(3, vocabulary, (count,), generator=seeded(1))]


def filled(denoiser: Denoiser, tokens: Sequence[int]) -> int:
    """A row whose frozen prefix holds these tokens."""
    row = denoiser.open_row()
    for begin in range(0, len(tokens), STRIDE):
        part = tokens[begin : begin + STRIDE]
        denoiser.forward([Segment(row, part, range(begin, begin + len(part)))])
        denoiser.freeze(row, len(part))
    return row


def block(denoiser: Denoiser, row: int, last: int, prefix: int, rows: int) -> list[Segment]:
    """A predict pass of mode `diffusion`: the last clean token, and behind it `rows` - 1 open ones."""
    segments = [Segment(row, [last], [prefix], wanted=[0])]
    if rows > 1:
        places = range(prefix + 1, prefix + rows)
        masks = [denoiser.spec.mask_id] * len(places)
        open_rows = range(len(places))
        segments.append(Segment(row, masks, places, noisy=True, causal=False, behind=((0, 1),), wanted=open_rows))
    return segments


def predict(denoiser: Denoiser, segments: Sequence[Segment]) -> Pass:
    """The pass with its head over all wanted positions; gives logits [N, V]."""
    return lambda: denoiser.logits(torch.cat(denoiser.forward(segments)))


@dataclass(frozen=True, slots=True)
class Contestant:
    """What is timed, and what makes it ready again, which is not."""

    run: Callable[[], Any]
    again: Callable[[], Any] = lambda: None


def turns(names: Sequence[str], rounds: int) -> Iterator[str]:
    """All names in each round, which begins with another one each time; a pause before each."""
    each = [names[(turn + place) % len(names)] for turn in range(rounds) for place in range(len(names))]
    for name in track(each, f"measuring {', '.join(names)}"):
        time.sleep(PAUSE)
        yield name


def medians(contestants: Mapping[str, Contestant], rounds: int) -> dict[str, float]:
    """Milliseconds of each, in turns that begin with another one each time; of two runs the second counts."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for name in turns(list(contestants), rounds):
        for _ in range(2):
            began = time.perf_counter()
            contestants[name].run()
            seconds = time.perf_counter() - began
            contestants[name].again()
        taken[name].append(1000 * seconds)
    return {name: statistics.median(times) for name, times in taken.items()}


def measured() -> str:
    """When, where and beside how much other work, for the head of a table."""
    load = f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    return f"{datetime.now(tz=UTC):%Y-%m-%d}, {machine()}, {load}."


def put(page: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- end -->`.

    :raises ValueError: if the page has no such place.
    """
    old = page.read_text(encoding="utf-8")
    found = re.subn(
        rf"<!-- {name} -->\n.*?<!-- end -->", lambda _: f"<!-- {name} -->\n{text}\n<!-- end -->", old, flags=re.DOTALL
    )
    if not found[1]:
        raise ValueError(f"{page} has no place for the table; write <!-- {name} --> and <!-- end --> into it")
    page.write_text(found[0], encoding="utf-8")
