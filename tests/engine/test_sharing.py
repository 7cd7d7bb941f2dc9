"""One model, many callers: interleaved streams, threads, early leavers, failures."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from dllm_plugins import Commit
from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Regex
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.constraints.automaton import Automaton
from dllm_plugins.constraints.building import build
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.tri_mode import TriModeDenoiser
from dllm_plugins.errors import PassError
from dllm_plugins.errors import RequestError
from dllm_plugins.sharing import SharedModel
from dllm_plugins.sharing import shared_model

#: Seconds until a thread that does not come on is given up; long, as machines are busy.
PATIENCE = 120.0


def requests(count: int) -> list[Request]:
    """Unequal prompts, half of them sampled."""
    return [
        Request(
            [5 + number] * (3 + 7 * number),
            SamplingConfig(max_new_tokens=10 + number, temperature=0.8 * (number % 2), seed=number),
        )
        for number in range(count)
    ]


def last(shared: SharedModel, request: Request) -> Finish:
    """The Finish of one stream."""
    finish = list(shared.stream(request))[-1]
    assert isinstance(finish, Finish)
    return finish


@pytest.fixture
def alone(tiny: Model) -> list[tuple[int, ...]]:
    """The answers to `requests(6)`, each decoded on its own."""
    return [tiny.engine().generate([request])[0].tokens for request in requests(6)]


def test_interleaved_streams_of_one_thread(tiny: Model, alone: list[tuple[int, ...]]) -> None:
    """Nobody waits for anybody, and no event is lost or mixed up."""
    shared = SharedModel(tiny)
    streams = [shared.stream(request) for request in requests(6)]
    found: dict[int, Finish] = {}
    while len(found) < 6:
        for number, stream in enumerate(streams):
            event = next(stream, None)
            if isinstance(event, Finish):
                found[number] = event
    assert [found[number].tokens for number in range(6)] == alone


def test_threads_share_passes(tiny: Model, alone: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Six threads at once: same answers, and passes that hold several rows."""
    rows: list[int] = []
    forward = TriModeDenoiser.forward

    def counted(self: TriModeDenoiser, segments: Sequence[Segment]) -> list[Tensor]:
        rows.append(len({segment.row for segment in segments}))
        return forward(self, segments)

    monkeypatch.setattr(TriModeDenoiser, "forward", counted)
    shared = SharedModel(tiny)
    found: dict[int, Finish] = {}
    ready = threading.Barrier(6)

    def work(number: int, request: Request) -> None:
        stream = shared.stream(request)
        next(stream)
        ready.wait()
        found[number] = next(event for event in stream if isinstance(event, Finish))

    threads = [threading.Thread(target=work, args=item) for item in enumerate(requests(6))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number].tokens for number in range(6)] == alone
    assert max(rows) == 6


def test_a_caller_who_leaves_frees_its_row(tiny: Model, alone: list[tuple[int, ...]]) -> None:
    """Closed or collected, a stream leaves the others alone."""
    shared = SharedModel(tiny)
    first, second = (shared.stream(request) for request in requests(2))
    next(first)
    next(second)
    first.close()
    assert shared._engine.active == (2,)
    *_, finish = second
    assert isinstance(finish, Finish)
    assert finish.tokens == alone[1]
    forgotten = shared.stream(requests(1)[0])
    next(forgotten)
    del forgotten
    gc.collect()
    assert not shared._engine.active
    assert not shared._claims


def test_a_batch_is_admitted_whole_or_not_at_all(tiny: Model, alone: list[tuple[int, ...]]) -> None:
    """A bad request among good ones leaves nothing behind."""
    shared = SharedModel(tiny)
    assert [finish.tokens for finish in shared.generate(requests(6))] == alone
    with pytest.raises(RequestError, match="empty"):
        shared.generate([*requests(2), Request([])])
    assert not shared._engine.active
    assert not shared._claims


def test_others_go_on_while_a_constraint_is_worked_out(
    tiny: Model, alone: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who are decoding, and those who come meanwhile, with another constraint, too."""
    shared, at_work, go_on = SharedModel(tiny), threading.Event(), threading.Event()

    def slow(language: Node) -> Automaton:
        if "z" in repr(language):
            at_work.set()
            assert go_on.wait(PATIENCE)
        return build(language)

    monkeypatch.setattr("dllm_plugins.engine.languages.build", slow)
    held = [Request([5], SamplingConfig(max_new_tokens=8, constraint=Regex(form))) for form in ("[yz]{2}", "[ab]{3}")]
    found: dict[str, Finish] = {}

    def ask(name: str, request: Request) -> threading.Thread:
        thread = threading.Thread(target=lambda: found.update({name: last(shared, request)}), daemon=True)
        thread.start()
        return thread

    first = shared.stream(requests(1)[0])
    next(first)
    slow_one = ask("slow", held[0])
    assert at_work.wait(PATIENCE)
    try:
        *_, finish = first
        assert isinstance(finish, Finish)
        assert finish.tokens == alone[0]
        for name, request in (("plain", requests(2)[1]), ("held", held[1])):
            thread = ask(name, request)
            thread.join(PATIENCE)
            assert name in found, "it waits for another's constraint"
    finally:
        go_on.set()
    slow_one.join(PATIENCE)
    assert found["plain"].tokens == alone[1]
    assert [len(found[name].text) for name in ("held", "slow")] == [3, 2]


def test_a_failed_pass_reaches_every_caller(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """No caller hangs, and the model serves the next request."""
    shared = SharedModel(tiny)
    first, second = (shared.stream(request) for request in requests(2))
    next(first)
    next(second)

    def broken(self: TriModeDenoiser, segments: Sequence[Segment]) -> list[Tensor]:
        raise MemoryError("too many rows")

    with monkeypatch.context() as patch:
        patch.setattr(TriModeDenoiser, "forward", broken)
        for stream in (first, second):
            with pytest.raises(PassError, match="a pass over 2 rows failed: MemoryError: too many rows") as told:
                list(stream)
            assert isinstance(told.value.__cause__, MemoryError)
    assert last(shared, requests(1)[0]).tokens


def test_a_model_is_loaded_once_and_freed_with_its_last_holder(tiny_folder: Path) -> None:
    """Same options, same object; other options, another one."""
    denoiser = tiny_folder.parent / "denoiser.safetensors"
    options: dict[str, Any] = {"base": tiny_folder, "denoiser": denoiser, "dtype": "bfloat16"}
    one = shared_model(**options)
    assert shared_model(**options) is one
    assert shared_model(**options, device="auto", device_map=None, backend="auto") is one
    other = shared_model(**{**options, "dtype": "float16"})
    assert other is not one
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None


def test_a_row_stopped_by_its_caller(tiny: Model, alone: list[tuple[int, ...]]) -> None:
    """The answer is cut, the others go on; a Finish that was waiting is cut too."""
    shared = SharedModel(tiny)
    batch = shared.stream_batch(requests(3))
    stopped: Finish | None = None
    found: dict[int, Finish] = {}
    for position, event in batch:
        if position == 1 and isinstance(event, Commit) and stopped is None:
            stopped = batch.stop(1, 1)
        elif isinstance(event, Finish):
            found[position] = event
    assert stopped is not None
    assert (stopped.tokens, stopped.reason) == (alone[1][:1], "stop")
    assert stopped.usage.useful_tokens == 1
    assert {position: finish.tokens for position, finish in found.items()} == {0: alone[0], 2: alone[2]}
    batch = shared.stream_batch(requests(1))
    last_commit = [event for event in shared.stream(requests(1)[0]) if isinstance(event, Commit)][-1]
    for _, event in batch:
        if isinstance(event, Commit) and event.step == last_commit.step:
            late = batch.stop(0, 3)
            assert late.tokens == alone[0][:3]
            assert late.usage.useful_tokens == 3
            assert last(shared, requests(1)[0]).text.startswith(late.text)
    assert not shared._engine.active


async def test_tasks_share_passes_and_leave_the_loop_free(tiny: Model, alone: list[tuple[int, ...]]) -> None:
    """Same answers; the event loop goes on while passes run."""
    shared = SharedModel(tiny)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async def ask(request: Request) -> Finish:
        events = [event async for event in shared.astream(request)]
        assert isinstance(events[-1], Finish)
        return events[-1]

    ticking = asyncio.create_task(tick())
    answers = await asyncio.gather(*(ask(request) for request in requests(6)))
    ticking.cancel()
    assert [answer.tokens for answer in answers] == alone
    assert ticks > sum(answer.usage.total_passes for answer in answers) // 6


async def test_a_cancelled_task_frees_its_row(tiny: Model, alone: list[tuple[int, ...]]) -> None:
    """In mid-pass or not, and the others are left alone."""
    shared = SharedModel(tiny)
    started = asyncio.Event()

    async def ask(request: Request) -> tuple[int, ...]:
        tokens: tuple[int, ...] = ()
        async for event in shared.astream(request):
            started.set()
            tokens = event.tokens if isinstance(event, Finish) else tokens
        return tokens

    leaving, staying = (asyncio.create_task(ask(request)) for request in requests(2))
    await started.wait()
    leaving.cancel()
    assert await staying == alone[1]
    with pytest.raises(asyncio.CancelledError):
        await leaving
    early = asyncio.create_task(ask(requests(1)[0]))
    await asyncio.sleep(0)
    early.cancel()
    with pytest.raises(asyncio.CancelledError):
        await early
    while shared._engine.active or shared._claims:
        await asyncio.sleep(0.001)


def test_leaving_in_mid_pass_frees_the_row_when_the_pass_ends(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if nobody asks for another pass."""
    shared = SharedModel(tiny)
    leaver, other = (shared.stream(request) for request in requests(2))
    next(leaver)
    next(other)
    forward = TriModeDenoiser.forward

    def leave(self: TriModeDenoiser, segments: Sequence[Segment]) -> list[Tensor]:
        leaver.close()
        return forward(self, segments)

    with monkeypatch.context() as patch:
        patch.setattr(TriModeDenoiser, "forward", leave)
        while shared._engine.active == (1, 2):
            next(other)
    assert shared._engine.active == (2,)


def test_closed_loops_are_not_kept_alive(tiny: Model) -> None:
    """Also those whose tasks have waited for one another, which ties a lock to its loop."""
    shared = SharedModel(tiny)
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def ask(request: Request) -> None:
        async for _ in shared.astream(request):
            pass

    async def both() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await asyncio.gather(*(ask(request) for request in requests(3)))

    for _ in range(4):
        asyncio.run(both())
    gc.collect()
    assert [loop() for loop in loops] == [None] * 4
    assert not shared._turns
