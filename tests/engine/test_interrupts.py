"""Whatever is raised wherever: the others get the right answer or an error of ours, nobody waits, nothing is left."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Sequence
from contextlib import closing
from contextlib import suppress
from dataclasses import replace
from functools import partialmethod
from typing import Any

import pytest
from torch import Tensor

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import engine as engine_module
from dllm_plugins import fair
from dllm_plugins import kept_prefixes as kept
from dllm_plugins import sharing
from dllm_plugins.decoding import answering
from dllm_plugins.decoding import running
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.running import RunningProgram
from dllm_plugins.denoisers import rows
from dllm_plugins.drafting import speculation
from dllm_plugins.engine import Engine
from dllm_plugins.engine import job as jobs
from dllm_plugins.errors import PassError
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Failure
from dllm_plugins.modes import ar
from dllm_plugins.modes import block_diffusion
from dllm_plugins.modes import llada
from dllm_plugins.modes import opened
from dllm_plugins.modes import ruled
from dllm_plugins.modes import speculative
from dllm_plugins.sharing import SharedModel

from ..modes.tiny_models import random_model
from .injecting import Injector

#: Where an interrupt may leave something half done.
BOOKKEEPING = (engine_module, jobs, sharing, fair, kept, rows, running, answering)
MODES = {
    "ar": (ar,),
    "speculative": (speculative, speculation),
    "diffusion": (block_diffusion, opened),
    "llada": (llada, ruled),
}


def requests(mode: str, count: int = 3) -> list[Request]:
    return [
        Request(
            [3 + number] * (2 + number),
            SamplingConfig(mode=mode, max_new_tokens=5 + number, temperature=0.7 * (number % 2), seed=number),
            stop_ids=frozenset(),
        )
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def model() -> Model:
    """All four modes by one random model."""
    return random_model(*MODES)


@pytest.fixture(scope="module")
def alone(model: Model) -> dict[str, list[tuple[int, ...]]]:
    """The answers of each on its own."""
    return {mode: [model.engine().generate([one])[0].tokens for one in requests(mode)] for mode in MODES}


def outcome(events: Generator[Any, None, None]) -> tuple[int, ...] | PassError:
    """The answer of a stream, or the error of ours that it ended in."""
    try:
        for event in events:
            if isinstance(event, Finish):
                return event.tokens
    except PassError as error:
        return error
    finally:
        events.close()
    raise AssertionError("a stream ended without an answer and without an error")


def interrupted_once(model: Model, mode: str, injector: Injector) -> list[Any]:
    """Two callers have begun; a third comes and is interrupted in its first passes; what the others get."""
    shared = SharedModel(model)
    others = [shared.stream(request) for request in requests(mode)[:2]]
    for stream in others:
        next(stream)
    with suppress(KeyboardInterrupt), injector, closing(shared.stream(requests(mode)[2])) as late:
        list(itertools.islice(late, 4))
    found = [outcome(stream) for stream in others]
    assert not shared._lock._queue
    assert shared._engine.active == ()
    assert not shared._claims
    assert model.denoiser.open_rows == 0, injector.where  # type: ignore[attr-defined]
    finish = shared.generate(requests(mode)[2:])[0]
    return [*found, finish.tokens]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_an_interrupt_before_any_line(mode: str, model: Model, alone: dict[str, list[tuple[int, ...]]]) -> None:
    """Of the engine, the sharing, the mode and the row's cache, one after the other, in steps of twenty-three."""
    expected, told, position = alone[mode], 0, 1
    for position in itertools.count(1, 23):
        injector = Injector(position, *BOOKKEEPING, *MODES[mode])
        found = interrupted_once(model, mode, injector)
        for answer, right in zip(found, expected, strict=True):
            assert isinstance(answer, PassError) or answer == right, injector.where
            told += isinstance(answer, PassError)
        if not injector.raised:
            break
    assert told
    assert position > 100
    assert not injector.raised


class Faulty:
    """Raises once where it is put in the place of a method, at a call that fits."""

    def __init__(self, target: Any, name: str, error: BaseException, fits: Callable[[Any], bool]) -> None:
        self.inner, self.error, self.fits, self.left = getattr(target, name), error, fits, 1

    def __call__(self, first: Any, *rest: Any) -> Any:
        if self.left and self.fits(first):
            self.left = 0
            raise self.error
        return self.inner(first, *rest)


EXCEPTIONS = [ValueError("odd"), MemoryError("full"), StopIteration("end"), RecursionError("deep")]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("owner", "name"),
    [(RunningProgram, "wanted"), (RunningProgram, "receive"), (RunningProgram, "send"), (Canvas, "tentative")],
)
@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_what_one_row_raises_ends_that_row(
    mode: str,
    owner: type,
    name: str,
    error: Exception,
    model: Model,
    alone: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others get their answers, and its caller an error of ours with what was raised behind it."""
    shared = SharedModel(model)
    batch = shared.stream_batch(requests(mode)).outcomes()
    first = next(batch)[1].row
    faulty = Faulty(owner, name, error, lambda this: this.row.number == first + 1)
    monkeypatch.setattr(owner, name, partialmethod(faulty))
    found = {position: event for position, event in batch if isinstance(event, Finish | Failure)}
    failed = found[1]
    assert isinstance(failed, Failure)
    assert isinstance(failed.error, PassError)
    assert failed.error.__cause__ is error
    assert [found[0].tokens, found[2].tokens] == [alone[mode][0], alone[mode][2]]  # type: ignore[union-attr]
    assert shared._engine.active == ()
    assert model.denoiser.open_rows == 0  # type: ignore[attr-defined]


class Spelling:
    """A tokenizer that cannot say one token."""

    def __init__(self, bad: int) -> None:
        self.bad = bad

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        if self.bad in token_ids:
            raise OverflowError(f"token {self.bad}")
        return "".join(chr(97 + token) for token in token_ids)


@pytest.mark.parametrize("mode", MODES)
def test_text_that_cannot_be_made_ends_one_row(mode: str, model: Model, alone: dict[str, Any]) -> None:
    """What finished in the same pass is delivered; nobody waits for ever, and `generate` says what happened."""
    bad = next(token for token in alone[mode][1] if token not in (*alone[mode][0], *alone[mode][2]))
    engine = Engine(model.denoiser, Spelling(bad), model.engine().modes)
    numbers, done = [engine.admit(request) for request in requests(mode)], dict[int, Any]()
    while engine.active:
        done |= {event.row: event for event in engine.step() if isinstance(event, Finish | Failure)}
    failed = done.pop(numbers[1])
    assert isinstance(failed.error.__cause__, OverflowError)
    assert [done[number].tokens for number in numbers[::2]] == alone[mode][::2]
    with pytest.raises(PassError, match=f"OverflowError: token {bad}"):
        engine.generate(requests(mode))
    with pytest.raises(PassError, match=f"OverflowError: token {bad}"):
        list(engine.stream(requests(mode)[1]))
    assert engine.active == ()
    assert model.denoiser.open_rows == 0  # type: ignore[attr-defined]


OUTSIDE = [KeyboardInterrupt(), SystemExit(1), GeneratorExit(), asyncio.CancelledError()]


@pytest.mark.parametrize("error", OUTSIDE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("name", ["forward", "logits", "unmask"])
def test_a_pass_that_is_broken_off(
    error: BaseException, name: str, model: Model, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made it gets what was raised; rows of the pass end with an error of ours, later ones do not notice."""
    shared = SharedModel(model)
    # A head without logits is asked unless somebody wants them.
    asked = [replace(request, logits=name == "logits") for request in requests("llada")]
    streams = [shared.stream(request) for request in asked[:2]]
    for stream in streams:
        next(stream)
    with monkeypatch.context() as patch:
        patch.setattr(model.denoiser, name, Faulty(model.denoiser, name, error, lambda _: True))
        with pytest.raises(type(error)):
            list(shared.stream(asked[2]))
    assert shared._engine.active == ()
    assert model.denoiser.open_rows == 0  # type: ignore[attr-defined]
    for stream in streams:
        with pytest.raises(PassError, match=f"a pass over 3 rows was broken off by {type(error).__name__}"):
            list(stream)
    assert [finish.tokens for finish in shared.generate(requests("llada"))] == alone["llada"]


def test_the_engine_alone_tells_the_rows_of_a_broken_pass(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next step makes no pass: it says which rows have failed; `stop` gives no answer from half a pass."""
    engine = model.engine()
    numbers = [engine.admit(request) for request in requests("ar")]
    with monkeypatch.context() as patch:
        patch.setattr(model.denoiser, "forward", Faulty(model.denoiser, "forward", KeyboardInterrupt(), lambda _: True))
        with pytest.raises(KeyboardInterrupt):
            engine.step()
    with pytest.raises(PassError, match="broken off by KeyboardInterrupt"):
        engine.stop(numbers[0], 1)
    engine.cancel(numbers[0])
    late = engine.admit(requests("ar")[0])
    assert engine.active == (*numbers[1:], late)
    failed = engine.step()
    assert [(event.row, isinstance(event, Failure)) for event in failed] == [(number, True) for number in numbers[1:]]
    assert engine.active == (late,)
    engine.cancel(late)
    assert model.denoiser.open_rows == 0  # type: ignore[attr-defined]


def test_rows_that_are_gone_are_an_error_at_once(model: Model) -> None:
    """Whoever waits for a row that somebody has dropped does not wait for ever."""
    shared = SharedModel(model)
    stream = shared.stream(requests("ar")[2])
    next(stream)
    while shared._claims[1].events:
        next(stream)
    shared._engine.cancel(1)
    with pytest.raises(PassError, match="gone"):
        list(stream)


def test_a_batch_knows_no_place_that_has_ended(model: Model) -> None:
    """`stop` raises KeyError, as it promises, for places that never were, or have no events to come."""
    batch = SharedModel(model).stream_batch(requests("ar")[:1])
    for position in (0, 1, -1):
        with pytest.raises(KeyError):
            batch.stop(position, 0)
    list(batch)
    with pytest.raises(KeyError):
        batch.stop(0, 0)


def test_a_refused_request_frees_those_before_it(model: Model) -> None:
    """Also where the caller keeps the exception, and with it every frame it went through."""
    shared = SharedModel(model)
    with pytest.raises(RequestError) as kept_error:
        shared.generate([*requests("ar"), Request([])])
    assert kept_error.value
    assert not shared._claims
    assert model.denoiser.open_rows == 0  # type: ignore[attr-defined]


def test_threads_whose_passes_are_broken_off(model: Model, alone: dict[str, Any]) -> None:
    """Eight threads, an exception from outside in one pass out of seven: right answers or errors, and no one hangs."""
    shared, counter = SharedModel(model), itertools.count(1)
    results: list[Any] = []
    forward = type(model.denoiser).forward

    def sometimes(segments: Any) -> list[Tensor]:
        if not next(counter) % 7:
            raise SystemExit
        return forward(model.denoiser, segments)

    def work(number: int) -> None:
        for turn in range(4):
            mode = list(MODES)[(number + turn) % 4]
            with suppress(SystemExit):
                results.append((mode, number % 3, outcome(shared.stream(requests(mode)[number % 3]))))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.denoiser, "forward", sometimes)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert {type(answer) for _, _, answer in results} == {tuple, PassError}
    assert all(isinstance(answer, PassError) or answer == alone[mode][at] for mode, at, answer in results)
    assert shared._engine.active == ()
    assert not shared._claims
