"""Programs under way: one pass is answered, question by question, until every program wants the next."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from dllm_plugins.decoding.answering import Question
from dllm_plugins.decoding.answering import answer_all
from dllm_plugins.decoding.answering import question
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.failing import blaming
from dllm_plugins.decoding.failing import sharing
from dllm_plugins.decoding.program import LOGITS
from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.program import Ask
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import Program
from dllm_plugins.decoding.row import Row
from dllm_plugins.denoisers.base import FullDenoiser
from dllm_plugins.denoisers.base import ModelSpec


class RunningProgram:
    """A row's program, its canvas, and the pass it wants.

    :param start: the program of a canvas.
    """

    def __init__(self, row: Row, spec: ModelSpec, start: Callable[[Canvas, ModelSpec], Program]) -> None:
        self.row = row
        self.canvas = Canvas(row, spec)
        self._spec = spec
        self._start = start
        self._program: Program | None = None
        self._wanted: Pass | None = None
        self._parts: Sequence[Tensor] = ()

    def wanted(self) -> Pass:
        """The pass that the program wants now; the first time, it begins."""
        if self._program is None:
            self._program = self._start(self.canvas, self._spec)
            first = next(self._program)
            assert isinstance(first, Pass), "a program begins with a pass"
            self._wanted = first
        assert self._wanted is not None
        return self._wanted

    def restart(self, start: Callable[[Canvas, ModelSpec], Program]) -> None:
        """Another program goes on behind the final text; what this one wants, and what it drafted, is dropped."""
        if self._program is not None:
            self._program.close()
        self._program, self._start = None, start
        self.canvas.cut(len(self.row.tokens))

    def receive(self, parts: Sequence[Tensor], denoiser: FullDenoiser) -> list[Question]:
        """The pass was made: keep what the program wants kept of its keys; what it asks.

        :param parts: by segment, the hidden states of the wanted positions.
        """
        made, row = self.wanted(), self.row
        if made.freeze:
            denoiser.freeze(row.handle, made.freeze)
            row.frozen += made.freeze
            row.cache = row.cache or "exact"
        if made.hold is not None:
            denoiser.hold(row.handle, made.hold)
            row.cache = "approximate"
        self._parts = parts
        return self._questions(
            [replace(LOGITS, of=number) for number in range(len(parts))] if made.asks is None else made.asks
        )

    def send(self, answers: list[Answer], denoiser: FullDenoiser) -> list[Question]:
        """Answer the program; what else it asks of this pass. The row is done if the program ends."""
        assert self._program is not None
        try:
            wanted = self._program.send(answers)
        except StopIteration:
            self.canvas.finish()
            return []
        if not isinstance(wanted, Pass):
            return self._questions(wanted)
        if wanted.keep:
            denoiser.freeze(self.row.handle, wanted.keep)
            self.row.frozen += wanted.keep
        self._wanted = wanted if wanted.rewind is None else self._rewound(wanted, wanted.rewind, denoiser)
        return []

    def _rewound(self, wanted: Pass, length: int, denoiser: FullDenoiser) -> Pass:
        """The pass, over no more than so many positions of the prefix."""
        row = self.row
        if row.frozen > length:
            state = denoiser.close_row(row.handle)
            row.handle = denoiser.open_row(state, length) if length else denoiser.open_row()
            row.frozen = length
        return replace(wanted, segments=tuple(replace(segment, row=row.handle) for segment in wanted.segments))

    def _questions(self, asks: Sequence[Ask]) -> list[Question]:
        if not self.row.limited:
            return [question(ask, self._parts) for ask in asks]
        limited = partial(self.canvas.restraints.limited, self.canvas.tokens)
        return [question(ask, self._parts, partial(limited, self._positions(ask), onward=ask.onward)) for ask in asks]

    def _positions(self, ask: Ask) -> Sequence[int]:
        """The canvas positions that are asked about: a shifted model's rows speak of the next one."""
        if ask.positions is not None:
            return ask.positions
        assert isinstance(ask.of, int), "what is asked again says where it stands"
        segment = self.wanted().segments[ask.of]
        return [segment.positions[index] + int(self._spec.shifted) for index in segment.wanted]


def answer_programs(
    programs: Sequence[RunningProgram], parts: Sequence[Sequence[Tensor]], denoiser: FullDenoiser
) -> None:
    """Answer all that programs ask of a pass, until each wants another one or has ended.

    What a program raises is noted in its row (:func:`~dllm_plugins.decoding.failing.blaming`) and ends that row
    only; what the denoiser raises ends the rows that it was asked for.

    :param parts: per program, per segment of its pass, what :meth:`Denoiser.forward` returned.
    """
    asking: list[tuple[RunningProgram, list[Question]]] = []
    for running, own in zip(programs, parts, strict=True):
        with blaming(running.row):
            asking.append((running, running.receive(own, denoiser)))
    while asking:
        answers: list[Answer] = []
        rows = [running.row for running, _ in asking]
        with sharing(rows):
            answers = answer_all(denoiser, [one for _, questions in asking for one in questions])
        asking = _sent([item for item in asking if item[0].row.error is None], iter(answers), denoiser)


def _sent(
    asked: Sequence[tuple[RunningProgram, list[Question]]], answers: Iterator[Answer], denoiser: FullDenoiser
) -> list[tuple[RunningProgram, list[Question]]]:
    """Hand the answers out; who has further questions, and which."""
    further = []
    for running, questions in asked:
        own = [next(answers) for _ in questions]
        with blaming(running.row):
            more = running.send(own, denoiser)
            if more:
                further.append((running, more))
    return further
