"""How the time of a pass grows with the prefix and with the rows, and what it is made of.

The default model in the engine, mode `diffusion` (`ar` for one row): real passes on a
cached prefix, timed by part. The last prefix is as long as the context allows.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path

import click
import torch

from dllm_plugins import Model
from dllm_plugins.kept_prefixes import KeptPrefixes
from engine_share import Parts
from engine_share import parts_of
from growth_plot import draw
from growth_plot import nearest
from passes import backend_of
from passes import default_model
from passes import drawn
from passes import measured
from passes import put
from progress import show
from progress import track

#: Parts of a pass, and of which of the statistics' parts they are.
SHARES = {
    "linear layers": ("forward/linear",),
    "attention": ("forward/attention",),
    "rest of the forward": ("forward/other",),
    "head": ("head",),
    "engine": ("rules", "engine", "text"),
}
#: The same where the decoder does not say what its forward is made of.
UNDIVIDED = {"forward": ("forward",), "head": ("head",), "engine": ("rules", "engine", "text")}


@dataclass(frozen=True, slots=True)
class Point:
    """A pass: medians in milliseconds, of all and of its parts.

    :param rows: as asked for; `forwarded` is what a pass forwarded on average.
    """

    prefix: int
    rows: int
    forwarded: float
    ms: float
    parts: dict[str, float]

    def share(self, name: str) -> float:
        """Of the whole, in percent."""
        return 100 * self.parts[name] / self.ms


def point(prefix: int, rows: int, found: Parts) -> Point:
    """The parts as the tables name them."""
    shares = SHARES if "forward/linear" in found.ms else UNDIVIDED
    parts = {name: sum(found.ms.get(part, 0.0) for part in of) for name, of in shares.items()}
    return Point(prefix, rows, found.rows, sum(parts.values()), parts)


def measure(model: Model, prefixes: list[int], rows: list[int], passes: int, rounds: int) -> Iterator[Point]:
    """Every number of rows behind every prefix."""
    spec = model.denoiser.spec
    room = spec.context - (passes + 1) * max(rows) - 1
    lengths = sorted({min(prefix, room) for prefix in prefixes})
    tokens = drawn(lengths[-1], spec.vocabulary)
    kept = KeptPrefixes(2 * spec.context)
    for length, count in track([(length, count) for length in lengths for count in rows], "measuring"):
        mode = "ar" if count == 1 else "diffusion"
        yield point(length, count, parts_of(model, tokens[:length], mode, count, passes, rounds, kept))


def cell(item: Point | None) -> str:
    """A pass in milliseconds; nothing where an interrupted run left off."""
    return "" if item is None else f"{item.ms:.1f}"


def tables(points: list[Point], head: str) -> str:
    """Milliseconds of every pass, and the shares of the parts behind every prefix."""
    prefixes = list(dict.fromkeys(item.prefix for item in points))
    rows = list(dict.fromkeys(item.rows for item in points))
    by_place = {(item.prefix, item.rows): item for item in points}
    lines = [f"{head} Milliseconds of a pass:", ""]
    lines.append("| prefix | " + " | ".join(f"{count} row{'s' * (count > 1)}" for count in rows) + " |")
    lines.append("|---|" + "---|" * len(rows))
    for prefix in prefixes:
        lines.append(f"| {prefix} | " + " | ".join(cell(by_place.get((prefix, count))) for count in rows) + " |")
    parts = list(points[0].parts)
    shown = {rows[0], nearest(rows), rows[-1]}
    lines += ["", "Of which, in percent:", "", "| prefix | rows | " + " | ".join(parts) + " |"]
    lines.append("|---|---|" + "---|" * len(parts))
    for item in (item for item in points if item.rows in shown):
        shares = " | ".join(f"{item.share(name):.1f}" for name in parts)
        lines.append(f"| {item.prefix} | {item.rows} | {shares} |")
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option(
    "--prefix", "prefixes", multiple=True, type=int, default=(128, 256, 512, 1024, 2048, 4096, 8192), show_default=True
)
@click.option("--rows", multiple=True, type=int, default=(1, 2, 4, 8, 16, 32), show_default=True)
@click.option("--passes", default=8, show_default=True, help="Of a measurement.")
@click.option("--rounds", default=5, show_default=True, help="Medians are over this many.")
@click.option("--threads", default=2, show_default=True)
@click.option("--dtype", default="bfloat16", show_default=True)
@click.option("--backend", help="Of the default model; the kernels, where they serve it, if left out.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the points here.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw them into this PNG.")
@click.option("--markdown", "page", type=click.Path(path_type=Path), help="Put the tables into this page.")
@click.option("--again", is_flag=True, help="Measure nothing: read the points from --json.")
def main(
    prefixes: tuple[int, ...],
    rows: tuple[int, ...],
    passes: int,
    rounds: int,
    threads: int,
    dtype: str,
    backend: str | None,
    path: Path | None,
    plot: Path | None,
    page: Path | None,
    again: bool,
) -> None:
    torch.set_num_threads(threads)
    if again:
        if path is None:
            raise click.UsageError("--again reads the points from a file; name it with --json")
        kept = json.loads(path.read_text(encoding="utf-8"))
        head, points = kept["measured"], [Point(**item) for item in kept["points"]]
    else:
        model = default_model(dtype, backend)
        head, points = f"{measured()} Default model in {dtype}, backend {backend_of(backend)}.", []
        for item in measure(model, list(prefixes), list(rows), passes, rounds):
            points.append(item)
            show(f"prefix {item.prefix}, rows {item.rows}: {item.ms:.1f} ms a pass")
            if path is not None:
                found = {"measured": head, "threads": threads, "points": [asdict(item) for item in points]}
                path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = tables(points, head)
    show("", text)
    if page is not None:
        put(page, "growth", text)
    if plot is not None:
        draw([asdict(item) for item in points], plot)


if __name__ == "__main__":
    main()
