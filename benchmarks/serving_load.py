"""Load and faults: many streaming clients of one server of ours for minutes, each answer held against the engine's.

Clients ask greedy and sampled requests in several modes, over and over; some leave in mid-stream. The table says how
many answers there were, how many differ from those that the engine in this process gives to each request alone, how
many streams failed, and what the server held at the beginning and at the end: memory, descriptors, threads, rows. With
`--kill` the server is killed half-way and started again at its port: streams under way are cut then, and no others.
"""

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import httpx
import psutil

from clients import PATIENCE
from clients import Told
from clients import chat
from clients import crowd
from clients import streamed
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.training.evaluation_prompts import HELD_OUT
from gguf_bench.checkpoints import SHAPES
from gguf_bench.checkpoints import checkpoint
from passes import measured
from passes import put
from progress import keep
from progress import say
from progress import show
from progress import track
from servers import Server
from servers import free_port
from servers import ours
from servers import running

#: How often the server is looked at, in seconds; memory is compared once it has been warm for a fifth of the time.
LOOK = 2.0
WARM = 0.2
#: Modes that take turns, by model.
MODES = {"dllm": ("speculative", "ar", "diffusion"), "tiny": ("sdar", "blocks", "freedave")}


@dataclass(frozen=True, slots=True)
class Plan:
    """How the server is asked.

    :param leaving: the share of requests whose client leaves before the end.
    :param kill: whether the server is killed half-way.
    """

    clients: int
    seconds: float
    leaving: float
    kill: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and the whole text of its answer."""

    body: Mapping[str, Any]
    text: str


@dataclass(frozen=True, slots=True)
class Held:
    """What the server's process has: bytes of memory of its own, descriptors, threads."""

    memory: int
    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True)
class Row:
    """A run.

    :param wrong: answers that are not those of the engine alone; `failed` streams that ended by an error.
    :param cut: streams that had begun when the server was killed.
    :param first: of all requests, milliseconds to the first text: the median and the 95th percentile.
    :param memory_growth: MiB, the end's median beside the one after warming up.
    :param rows_left: answers that the server still writes or keeps waiting at the end.
    """

    name: str
    clients: int
    minutes: float
    answers: int
    tokens_per_second: float
    wrong: int
    failed: int
    left: int
    cut: int
    first: float
    first_p95: float
    memory: float
    memory_growth: float
    descriptors: str
    threads: str
    rows_left: int


@dataclass(slots=True)
class Run:
    """What has happened so far."""

    told: list[Told] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    wrong: int = 0
    tokens: int = 0
    cut: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    dead: bool = False


def requests(name: str, model: Model, served: str, count: int) -> list[Asked]:
    """Greedy and sampled ones in several modes, of different lengths, each answered by the engine alone."""
    found = list[Asked]()
    for number in track(range(count), "answering each alone"):
        prompt, tokens = HELD_OUT[number % len(HELD_OUT)], 8 + 8 * (number % 6)
        own = {"mode": MODES[name][number % 3]}
        sampling: dict[str, Any] = {"temperature": 0.8, "seed": number} if number % 2 else {"temperature": 0.0}
        config = SamplingConfig(max_new_tokens=tokens, **own, **sampling)
        ids = model.encode_chat([{"role": "user", "content": prompt}])
        answer = model.engine().generate([Request(ids, config)])[0].text
        found.append(Asked(chat(served, prompt, tokens, dllm=own) | sampling, answer))
    return found


class Load:
    """The clients of one run."""

    def __init__(self, plan: Plan, asked: Sequence[Asked], model: Model) -> None:
        self._plan = plan
        self._asked = asked
        self._model = model
        self._end = time.monotonic() + plan.seconds
        self.run = Run()

    async def go(self, server: Server, again: Callable[[], Server]) -> None:
        """All clients until the time is over.

        :param again: kills the server and starts another one at its place.
        """
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self._plan.clients)
        async with httpx.AsyncClient(base_url=server.address, timeout=PATIENCE, limits=limits) as client:
            watching = asyncio.create_task(self._watch(server, again))
            await asyncio.gather(*(self._one(client, random.Random(each)) for each in range(self._plan.clients)))
            await watching

    async def _one(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        while time.monotonic() < self._end:
            number = draw.randrange(len(self._asked))
            leaves = draw.random() < self._plan.leaving
            after = draw.randrange(1, 40)
            asked, was_dead = self._asked[number], self.run.dead

            def leave(text: str, leaves: bool = leaves, after: int = after) -> bool:
                return leaves and len(text) >= after

            self._note(asked, await streamed(client, number, asked.body, leave), was_dead)
            if self.run.dead:
                await asyncio.sleep(0.5)

    def _note(self, asked: Asked, told: Told, was_dead: bool) -> None:
        if told.error and (was_dead or self.run.dead):
            self.run.cut += told.first is not None
            return
        self.run.told.append(told)
        if told.error:
            self.run.errors[told.error] += 1
        elif not told.left:
            self.run.wrong += told.text != asked.text
            self.run.tokens += len(self._model.tokenizer(told.text)["input_ids"])

    async def _watch(self, server: Server, again: Callable[[], Server]) -> None:
        half = time.monotonic() + self._plan.seconds / 2
        process = psutil.Process(server.process)
        while time.monotonic() < self._end:
            await asyncio.sleep(LOOK)
            if self._plan.kill and time.monotonic() > half and not self.run.dead:
                half = self._end
                self.run.dead = True
                process = psutil.Process((await asyncio.to_thread(again)).process)
                # Whoever was connected to the dead one has noticed by now.
                await asyncio.sleep(2)
                self.run.dead = False
            self.run.held.append(held(process))


def held(process: psutil.Process) -> Held:
    """What it has now."""
    return Held(process.memory_full_info().uss, process.num_fds(), process.num_threads())


def rows_left(server: Server) -> int:
    """Answers that the server writes or keeps waiting; a second after the last client has gone."""
    time.sleep(1)
    return server.figure("dllm_working", "dllm_waiting")


def row(name: str, plan: Plan, run: Run, left: int) -> Row:
    """What a run says."""
    firsts = sorted(1000 * told.first for told in run.told if told.first is not None)
    warm = run.held[int(len(run.held) * WARM) :]
    begin, end = warm[: max(1, len(warm) // 5)], warm[-max(1, len(warm) // 5) :]

    def median(part: Sequence[Held], of: str) -> float:
        return float(statistics.median(getattr(each, of) for each in part))

    return Row(
        name=name,
        clients=plan.clients,
        minutes=round(plan.seconds / 60, 1),
        answers=sum(not told.left and not told.error for told in run.told),
        tokens_per_second=round(run.tokens / plan.seconds, 1),
        wrong=run.wrong,
        failed=sum(run.errors.values()),
        left=sum(told.left for told in run.told),
        cut=run.cut,
        first=round(statistics.median(firsts)),
        first_p95=round(firsts[int(0.95 * (len(firsts) - 1))]),
        memory=round(median(begin, "memory") / 2**20, 1),
        memory_growth=round((median(end, "memory") - median(begin, "memory")) / 2**20, 1),
        descriptors=f"{median(begin, 'descriptors'):.0f}, {median(end, 'descriptors'):.0f}",
        threads=f"{median(begin, 'threads'):.0f}, {median(end, 'threads'):.0f}",
        rows_left=left,
    )


def loaded(name: str, place: Path, plan: Plan, count: int) -> Row:
    """A run on one model.

    :raises RuntimeError: if the server does not come up.
    """
    folder = "dllm" if name == "dllm" else str(checkpoint("sdar", SHAPES["tiny"], place))
    model = load_model(folder)
    asked = requests(name, model, folder, count)
    # A place of its own, where a second server can stand after the first.
    port = str(free_port())
    command = [port if part == "{port}" else part for part in ours("--model", folder)]
    with ExitStack() as stack:
        server = stack.enter_context(running(command, folder, port))
        # The model is loaded when it is asked for.
        crowd(server.address, [each.body for each in asked[:3]], 1)
        load = Load(plan, asked, model)

        def again() -> Server:
            nonlocal server
            psutil.Process(server.process).kill()
            server = stack.enter_context(running(command, folder, port))
            return server

        asyncio.run(load.go(server, again))
        for error, times in load.run.errors.most_common(5):
            say(f"{times} times: {error}")
        return row(name, plan, load.run, rows_left(server))


def table(found: Sequence[Row]) -> str:
    """Rows in Markdown."""
    lines = [
        "| model | clients | minutes | answers | tokens/s | wrong | failed | left | cut | first text, 95 % | "
        "MiB, growth | descriptors | threads | rows left |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.name} | {row.clients} | {row.minutes} | {row.answers} | {row.tokens_per_second} | {row.wrong} | "
        f"{row.failed} | {row.left} | {row.cut} | {row.first:.0f} ms, {row.first_p95:.0f} ms | {row.memory:.0f}, "
        f"{row.memory_growth:+.1f} | {row.descriptors} | {row.threads} | {row.rows_left} |"
        for row in found
    ]
    return "\n".join(lines)


@click.command()
@click.option("--model", "names", type=click.Choice(tuple(MODES)), multiple=True, default=tuple(MODES))
@click.option("--clients", type=int, help="By default 200 of the tiny model, 32 of the default one.")
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--leaving", default=0.1, show_default=True, help="The share of clients that leave in mid-stream.")
@click.option("--kill", is_flag=True, help="Kill the server half-way.")
@click.option("--requests", "count", default=48, show_default=True, help="Different ones.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows here.")
@click.option("--markdown", "page", type=click.Path(path_type=Path), help="Put the table into this page.")
def main(
    names: tuple[str, ...],
    clients: int | None,
    minutes: float,
    leaving: float,
    kill: bool,
    count: int,
    path: Path | None,
    page: Path | None,
) -> None:
    """Run and print a table; ends by an error if anything went wrong."""
    found = list[Row]()
    with TemporaryDirectory() as place:
        for name in names:
            plan = Plan(clients or (32 if name == "dllm" else 200), 60 * minutes, leaving, kill)
            found.append(loaded(name, Path(place), plan, count))
            keep(found, path)
    show("", table(found))
    if page is not None:
        put(page, "load-kill" if kill else "load", f"{measured()}\n\n{table(found)}")
    bad = sum(row.wrong + row.failed + row.rows_left for row in found)
    if bad:
        raise SystemExit(f"{bad} answers were wrong, failed or are left over")


if __name__ == "__main__":
    main()
