"""Ours beside other projects: same weights, same algorithm, same prompt, in one run.

Each comparison loads both sides, lets each decode once unmeasured, and then times whole
sampler calls in alternating rounds; rows hold the medians. `ratio` is their time over ours.
Comparisons whose project is not there are skipped with what to do about it.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import machine
from passes import measured as measured_at
from passes import put
from peers.peer import Contest
from peers.peer import Decoded
from peers.peer import Peer
from peers.peer import Setup
from peers.peer import Size
from peers.peer import Skip
from progress import keep
from progress import say
from progress import show
from progress import track

#: In the order of the table.
MODULES = ("zhz", "nvlabs", "diffusers_llada2", "transformers_gemma")
SAME = "same tokens"
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
HEAD = (
    "| row | ours | theirs | ratio | passes | theirs | tokens/pass | tokens |",
    "|---|---|---|---|---|---|---|---|",
)
PROJECTS = {"zhz": "https://github.com/ZHZisZZ/dllm", "nvlabs": "https://github.com/NVlabs/Fast-dLLM"}


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison at one size. Seconds are medians; `exactness` says how the tokens compare."""

    name: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    ratio_per_pass: float
    passes: int
    their_passes: int
    rows: int
    their_rows: int
    tokens_per_forward: float
    their_tokens_per_forward: float
    exactness: str
    distinct_tokens: int
    dtype: str
    threads: int
    prompt: int
    new_tokens: int
    weights: int
    setting: str
    note: str


def exactness(ours: Decoded, theirs: Decoded, dtype: torch.dtype) -> str:
    """Whether both gave the same tokens, and if not, from where on."""
    if ours.tokens == theirs.tokens:
        return SAME
    pairs = list(zip(ours.tokens, theirs.tokens, strict=False))
    differing = [place for place, (own, other) in enumerate(pairs) if own != other]
    if not differing:
        return f"same up to length: ours {len(ours.tokens)} tokens, theirs {len(theirs.tokens)}"
    where = f"first differ at new token {differing[0]}; {len(pairs) - len(differing)} of {len(pairs)} equal"
    why = "bfloat16 rounds sums of another order" if dtype == torch.bfloat16 else "see the row's note"
    return f"{where} ({why})"


def timed(call: Callable[[], Decoded]) -> tuple[float, Decoded]:
    """Seconds and the answer."""
    began = time.perf_counter()
    answer = call()
    return time.perf_counter() - began, answer


def measured(name: str, contest: Contest, setup: Setup, rounds: int) -> Row:
    """Both sides, who begins changing from round to round."""
    answers = {side: getattr(contest, side)() for side in track(("ours", "theirs"), f"warming up {name}")}
    seconds: dict[str, list[float]] = {side: [] for side in answers}
    for turn in track(range(rounds), f"measuring {name}"):
        for side in ("ours", "theirs") if turn % 2 == 0 else ("theirs", "ours"):
            taken, answers[side] = timed(getattr(contest, side))
            seconds[side].append(taken)
    ours, theirs = (statistics.median(seconds[side]) for side in ("ours", "theirs"))
    own, other = answers["ours"], answers["theirs"]
    return Row(
        name=f"{name}/{setup.size}",
        ours=round(ours, 4),
        theirs=round(theirs, 4),
        unit="s",
        ratio=round(theirs / ours, 3),
        ratio_per_pass=round(theirs / other.passes * own.passes / ours, 3),
        passes=own.passes,
        their_passes=other.passes,
        rows=own.rows,
        their_rows=other.rows,
        tokens_per_forward=round(len(own.tokens) / own.passes, 3),
        their_tokens_per_forward=round(len(other.tokens) / other.passes, 3),
        exactness=exactness(own, other, setup.dtype),
        distinct_tokens=len(set(own.tokens)),
        dtype=setup.dtype_name,
        threads=torch.get_num_threads(),
        prompt=setup.size.prompt,
        new_tokens=setup.size.new,
        weights=contest.weights,
        setting=contest.setting,
        note=contest.note,
    )


def compared(peer: Peer, size: Size, dtype: torch.dtype, checkout: Path | None, rounds: int) -> Row:
    """One comparison, from its random checkpoint to its row.

    Where the tokens differ in bfloat16, both sides decode once more in float32, unmeasured.

    :raises Skip: if the other project is not there.
    """
    if peer.checkout is not None and checkout is None:
        where = PROJECTS.get(peer.checkout, "the project")
        raise Skip(f"no checkout; git clone {where} and give its folder as --{peer.checkout} PATH")
    with tempfile.TemporaryDirectory() as place:
        setup = Setup(size, dtype, Path(place), checkout)
        row = measured(peer.name, peer.build(setup), setup, rounds)
    if dtype == torch.float32 or row.exactness == SAME:
        return row
    with tempfile.TemporaryDirectory() as place:
        contest = peer.build(Setup(size, torch.float32, Path(place), checkout))
        found = exactness(contest.ours(), contest.theirs(), torch.float32)
    return replace(row, exactness=f"{row.exactness}; in float32: {found}")


def known() -> tuple[Peer, ...]:
    """All comparisons there are."""
    return tuple(peer for name in MODULES for peer in import_module(f"peers.{name}").PEERS)


def chosen(peers: Iterable[Peer], only: Sequence[str]) -> list[Peer]:
    """Those of these names, all if there are none.

    :raises click.BadParameter: for a name that no comparison has.
    """
    names = {peer.name: peer for peer in peers}
    for name in only:
        if name not in names:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(names)}", param_hint="--only")
    return [peer for peer in names.values() if not only or peer.name in only]


def made(
    peers: Iterable[Peer], sizes: Sequence[Size], dtype: torch.dtype, checkouts: Mapping[str, Path | None], rounds: int
) -> Iterator[Row]:
    """Rows as they come; says what is skipped and why, once."""
    for peer in peers:
        told: set[str] = set()
        for size in sizes:
            try:
                yield compared(peer, size, dtype, checkouts.get(peer.checkout or ""), rounds)
            except Skip as skip:
                if str(skip) not in told:
                    say(f"skipped {peer.name}: {skip}")
                told.add(str(skip))


def check_used(peers: Iterable[Peer], checkouts: Mapping[str, Path | None]) -> None:
    """Refuse a checkout that no chosen comparison needs.

    :raises click.BadParameter: naming its option.
    """
    needed = {peer.checkout for peer in peers}
    for option, path in checkouts.items():
        if path is not None and option not in needed:
            raise click.BadParameter(f"{path} is of no use to the chosen comparisons", param_hint=f"--{option}")


def parsed(_context: click.Context, _option: click.Parameter, text: str) -> list[Size]:
    """Sizes from a list with commas."""
    try:
        return [Size.parse(part.strip()) for part in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.option("--zhz", type=click.Path(path_type=Path), help="Checkout of ZHZisZZ/dllm.")
@click.option("--nvlabs", type=click.Path(path_type=Path), help="Checkout of NVlabs/Fast-dLLM.")
@click.option(
    "--sizes", default="p256n128", show_default=True, callback=parsed, help="Prompt and new tokens, by comma."
)
@click.option("--only", multiple=True, help="A comparison's name; may be repeated.")
@click.option("--dtype", default="bfloat16", show_default=True, type=click.Choice(list(DTYPES)))
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Timed calls of each side.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--json", "path", type=click.Path(path_type=Path), help="Also write the rows here.")
@click.option(
    "--markdown",
    "page",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Also put the table into this page.",
)
def main(
    zhz: Path | None,
    nvlabs: Path | None,
    sizes: list[Size],
    only: tuple[str, ...],
    dtype: str,
    rounds: int,
    threads: int,
    path: Path | None,
    page: Path | None,
) -> None:
    """Print a table of medians and ratios."""
    torch.set_num_threads(threads)
    checkouts = {"zhz": zhz, "nvlabs": nvlabs}
    peers = chosen(known(), only)
    check_used(peers, checkouts)
    rows: list[Row] = []
    lines = [*HEAD]
    show(machine(), "", *lines)
    keep(rows, path)
    for row in made(peers, sizes, DTYPES[dtype], checkouts, rounds):
        rows.append(row)
        lines.append(line(row))
        show(lines[-1])
        keep(rows, path)
    if page is not None:
        put(page, "peers", "\n".join([f"{measured_at()} {dtype}, rounds: {rounds}.", "", *lines]))


def line(row: Row) -> str:
    """A row of the table."""
    return (
        f"| {row.name} | {row.ours:.2f} s | {row.theirs:.2f} s | {row.ratio:.2f} | {row.passes} | "
        f"{row.their_passes} | {row.tokens_per_forward:.2f} | {row.exactness} |"
    )


if __name__ == "__main__":
    main()
