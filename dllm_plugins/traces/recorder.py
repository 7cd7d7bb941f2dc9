"""Events of an answer, kept as one frame a pass."""

import math
from collections.abc import Mapping
from collections.abc import Sequence
from itertools import zip_longest
from typing import Protocol

from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.events import TokenLogprob
from dllm_plugins.template import Template
from dllm_plugins.traces.frames import Cell
from dllm_plugins.traces.frames import Frame
from dllm_plugins.traces.frames import Trace
from dllm_plugins.traces.laying import laid_out
from dllm_plugins.traces.pieces import TokenTexts
from dllm_plugins.traces.run import Run


class Wording(Protocol):
    """What is asked of a tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> Sequence[int]:
        """Ids of a text."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of token ids."""


class Recorder:
    """Takes the events of one request and keeps a frame for every pass.

    :param tokenizer: the model's own.
    :param template: what the request fills; its fixed texts then stand in every frame.
    """

    def __init__(self, tokenizer: Wording, template: Template | None = None) -> None:
        pieces = TokenTexts(tokenizer)
        #: Fixed texts, and the runs of tokens between them.
        self._parts: list[str | Run] = [Run(pieces)] if template is None else []
        # Behind a chat, what a gap begins with reads as it does behind a line.
        before = "\n" if template is not None and template.chat else ""
        for part in () if template is None else template.parts:
            if isinstance(part, str):
                before = part
            ids = tokenizer.encode(before, add_special_tokens=False) if before else ()
            self._parts.append(part if isinstance(part, str) else Run(pieces, ids[-1] if ids else None))
        self._runs = [part for part in self._parts if isinstance(part, Run)]
        self._template = template
        self._frames: list[Frame] = []
        self._finish: Finish | None = None

    def take(self, event: Event) -> None:
        """What the engine told of this request, in order."""
        if isinstance(event, Finish):
            self._end(event)
        elif self._template is not None:
            # Of gaps, a Draft says all that a Commit does.
            if isinstance(event, Draft):
                self._fill(event)
        elif isinstance(event, Commit):
            [run] = self._runs
            run.note(run.final, event.tokens, _sure(event.logprobs), event.step)
            run.final += len(event.tokens)
        else:
            [run] = self._runs
            run.note(run.final, event.tokens, event.confidences, event.step)
            self._show(event.step, [run.cells(tuple(zip_longest(event.guesses or event.tokens, event.confidences)))])

    def trace(self, chat: Sequence[Mapping[str, str]], model: str) -> Trace:
        """What was recorded so far.

        :param chat: what was asked, as role and content.
        :param model: its name.
        """
        frames, done = tuple(self._frames), self._finish
        if done is not None and self._template is None:
            frames = laid_out(frames, done.text)
        if done is None:
            return Trace(tuple(chat), model, frames)
        return Trace(tuple(chat), model, frames, done.reason, done.usage)

    def _fill(self, draft: Draft) -> None:
        """What a pass left in every gap."""
        shown: list[list[Cell]] = []
        for run, gap in zip(self._runs, draft.gaps, strict=True):
            run.note_all(gap.tokens, gap.confidences, draft.step)
            run.final = gap.final
            behind = zip_longest(gap.guesses[gap.final :], gap.confidences[gap.final :])
            shown.append(run.cells(tuple(behind)))
        self._show(draft.step, shown)

    def _end(self, finish: Finish) -> None:
        """What stands in the end is final; what was said of it is known from Commits, if not from the gaps."""
        told = [(gap.tokens, _sure(gap.logprobs)) for gap in finish.gaps] or [(finish.tokens, [])]
        for run, (tokens, sure) in zip(self._runs, told, strict=True):
            run.note_all(tokens, sure, finish.step) if finish.gaps else run.note(0, tokens, sure, finish.step)
            run.final = len(tokens)
        self._finish = finish
        self._show(finish.step, [run.cells() for run in self._runs])

    def _show(self, step: int, shown: Sequence[Sequence[Cell]]) -> None:
        """A frame: fixed texts as they stand, between them these cells of each run."""
        cells, runs = list[Cell](), iter(shown)
        for part in self._parts:
            cells += [Cell(part, "fixed")] if isinstance(part, str) else next(runs)
        self._frames.append(Frame(step, tuple(cells)))


def _sure(said: Sequence[TokenLogprob]) -> list[float | None]:
    return [None if one.logprob is None else math.exp(one.logprob) for one in said]
