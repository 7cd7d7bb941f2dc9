"""Rows are decoded together, joining and leaving at any pass; what becomes of one does not depend on its company."""

from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field
from typing import Protocol

from dllm_plugins.engine import Engine
from dllm_plugins.errors import DllmError
from dllm_plugins.errors import PassError
from dllm_plugins.events import Failure
from dllm_plugins.events import Finish
from dllm_plugins.jobs.journal import Record
from dllm_plugins.jobs.lines import Line
from dllm_plugins.request import Request


class Prepared(Protocol):
    """What a row asks of the engine."""

    @property
    def requests(self) -> list[Request]:
        """One for each answer that it wants."""

    def record(self, finishes: list[Finish]) -> Record:
        """The row of the output."""


class Preparing(Protocol):
    """Reads rows, and writes what becomes of them."""

    def prepare(self, line: Line) -> Prepared | Record:
        """What a row asks of the engine; the row of the output if it cannot be asked."""

    def failed(self, line: Line, error: Exception) -> Record:
        """The row of the output where the engine refused it, or failed."""


#: Rows that are told at once, of many that cannot be asked.
_REFUSED = 64


@dataclass(eq=False, slots=True)
class _Row:
    """A row of the input under way.

    :param numbers: of its requests in the engine, in their order.
    :param accompanied: another row took part in its passes.
    """

    line: Line
    prepared: Prepared
    numbers: list[int] = field(default_factory=list)
    finishes: dict[int, Finish] = field(default_factory=dict)
    accompanied: bool = False


class Runner:
    """Answers rows with an engine that nobody else uses.

    :param together: rows of the engine at once, unless one row of the input wants more.
    """

    def __init__(self, engine: Engine, preparing: Preparing, together: int) -> None:
        self._engine = engine
        self._preparing = preparing
        self._together = together
        self._rows: dict[int, _Row] = {}
        # Rows whose pass failed in company: another one may have been the cause.
        self._suspects: deque[_Row] = deque()
        self._next: tuple[Line, Prepared] | None = None
        self.tokens = 0

    @property
    def idle(self) -> bool:
        """Whether no row is under way."""
        return not (self._rows or self._suspects or self._next)

    def step(self, take: Callable[[], Line | None]) -> list[Record]:
        """Let rows join, and make one pass over all there are.

        :param take: gives the next row, None where there is none at present.
        :returns: the rows of the output that came of it.
        """
        return [*self._fill(take), *self._pass()]

    def _fill(self, take: Callable[[], Line | None]) -> Iterator[Record]:
        refused = 0
        while not self._suspects and refused < _REFUSED:
            if self._next is None:
                line = take() if len(self._rows) < self._together else None
                if line is None:
                    return
                prepared = self._prepared(line)
                if isinstance(prepared, Record):
                    yield prepared
                    refused += 1
                    continue
                self._next = line, prepared
            if self._rows and len(self._rows) + len(self._next[1].requests) > self._together:
                return
            joining, self._next = _Row(*self._next), None
            yield from self._admit(joining)
        if self._suspects and not self._rows:
            yield from self._admit(self._suspects.popleft())

    def _prepared(self, line: Line) -> Prepared | Record:
        try:
            return self._preparing.prepare(line)
        except Exception as error:  # noqa: BLE001  a row that cannot be read must not end the others
            return self._preparing.failed(line, error)

    def _admit(self, row: _Row) -> Iterator[Record]:
        try:
            for request in row.prepared.requests:
                number = self._engine.admit(request)
                row.numbers.append(number)
                self._rows[number] = row
        except Exception as error:  # noqa: BLE001  nor one that a mode or a tokenizer stumbles over
            self._drop(row)
            yield self._preparing.failed(row.line, error)

    def _pass(self) -> Iterator[Record]:
        alone = len({id(row) for row in self._rows.values()}) == 1
        for one in self._rows.values():
            one.accompanied = not alone
        for event in self._engine.step():
            row = self._rows.get(event.row)
            if row is not None and isinstance(event, Failure):
                yield from self._fail(row, event.error)
            elif row is not None and isinstance(event, Finish):
                del self._rows[event.row]
                row.finishes[event.row] = event
                self.tokens += event.usage.useful_tokens
                if len(row.finishes) == len(row.numbers):
                    yield self._finished(row)

    def _finished(self, row: _Row) -> Record:
        try:
            return row.prepared.record([row.finishes[number] for number in row.numbers])
        except Exception as error:  # noqa: BLE001  nor one whose answer cannot be told
            return self._preparing.failed(row.line, error)

    def _fail(self, row: _Row, error: DllmError) -> Iterator[Record]:
        self._drop(row)
        if isinstance(error, PassError) and row.accompanied:
            self._suspects.append(_Row(row.line, row.prepared))
        else:
            yield self._preparing.failed(row.line, error)

    def _drop(self, row: _Row) -> None:
        """Whatever else the row asked for is of no use any more."""
        for number in row.numbers:
            if self._rows.pop(number, None) is not None:
                with suppress(DllmError):
                    self._engine.cancel(number)
