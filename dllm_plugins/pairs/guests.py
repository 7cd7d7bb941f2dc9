"""Stretches of a pair's answers that its other model writes: requests to an engine of its own, a pass at a time.

Each is asked to go on behind all that is final, as anybody could ask; what its modes keep of a prefix serves the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from dllm_plugins.config import LARGEST_SEED
from dllm_plugins.denoisers.guest import Guest
from dllm_plugins.engine.job import Job
from dllm_plugins.errors import DllmError
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Event
from dllm_plugins.events import Failure
from dllm_plugins.events import Finish
from dllm_plugins.events import FinishReason
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.models import Model
from dllm_plugins.pairs.bridge import Bridge
from dllm_plugins.pairs.bridge import OneTokenizer
from dllm_plugins.request import AnswerPart
from dllm_plugins.request import Request

#: What the end of an answer to a stretch means for the stretch.
_ENDS: Mapping[FinishReason, str] = {
    "length": "length",
    "eos": "eos",
    "stop": "eos",
    "context": "its context is full",
}


@dataclass(slots=True)
class _Visit:
    """A guest, the number of its row, and what was forwarded for it in all passes before."""

    guest: Guest
    number: int
    job: Job
    text: list[int]
    rows: int = 0


class Guests:
    """The stretches under way, by row of the pair."""

    def __init__(self, model: Model, bridge: Bridge) -> None:
        self._engine = model.engine(KeptPrefixes(model.denoiser.spec.context, blocks=True))
        self._bridge = bridge
        self._one = isinstance(bridge, OneTokenizer)
        self._visits: dict[int, _Visit] = {}

    def advance(self, asked: Mapping[int, Guest]) -> None:
        """One pass of the model over these rows' stretches; what comes of it is told to each guest."""
        for row, guest in asked.items():
            if row not in self._visits:
                self._begin(row, guest)
        told = {visit.number: row for row, visit in self._visits.items()}
        for event in self._engine.step():
            # After an interrupt rows are told that have left since.
            if event.row in told:
                self._tell(told[event.row], event)
        for visit in self._visits.values():
            visit.guest.rows, visit.rows = visit.job.forwarded - visit.rows, visit.job.forwarded

    @property
    def active(self) -> tuple[int, ...]:
        """Rows with a stretch under way."""
        return tuple(self._visits)

    def close(self, row: int) -> None:
        """A row has ended, perhaps in the middle of a stretch."""
        visit = self._visits.pop(row, None)
        if visit is not None:
            self._engine.cancel(visit.number)

    def _begin(self, row: int, guest: Guest) -> None:
        text, begins = self._bridge.over(list(guest.tokens)), self._bridge.over(list(guest.tokens[: guest.prompt]))
        if text is None or begins is None or text[: len(begins)] != begins:
            guest.ended = "the text ends inside a character or a word of it"
            return
        part, config = AnswerPart(len(text) - len(begins), guest.behind), guest.config
        if not self._one:
            # Numbers of the same seed are those of other positions there.
            seed = None if config.seed is None else (config.seed + 1) % (LARGEST_SEED + 1)
            config = config.model_copy(update={"seed": seed, "logprobs": None})
        stop_ids = guest.stop_ids if self._one else None
        try:
            job = self._engine.prepare(Request(text, config, stop_ids, part=part))
        except RequestError as error:
            guest.ended = str(error)
        except DllmError as error:
            guest.error = error
        else:
            self._visits[row] = _Visit(guest, self._engine.enter(job), job, text)

    def _tell(self, row: int, event: Event | Failure) -> None:
        visit = self._visits[row]
        guest = visit.guest
        if isinstance(event, Failure):
            guest.error = event.error
        elif isinstance(event, Finish):
            said = list(event.tokens)
            guest.said = said if self._one else self._back(visit, said)
            guest.logprobs = list(event.logprobs or ()) if self._one else []
            guest.drafted = ()
            guest.ended = _ENDS[event.reason]
            guest.rows = visit.job.forwarded - visit.rows
        elif self._one and isinstance(event, Commit):
            guest.said += event.tokens
            guest.logprobs += event.logprobs
        elif self._one and isinstance(event, Draft):
            guest.drafted = event.guesses
        if isinstance(event, Finish | Failure):
            del self._visits[row]

    def _back(self, visit: _Visit, said: list[int]) -> list[int]:
        """What was said in the tokens of the pair's target."""
        drafts = torch.tensor([[token, 1.0] for token in said], dtype=torch.float64).reshape(-1, 2)
        found = self._bridge.back(list(visit.guest.tokens), visit.text, drafts)
        return [int(token) for token in found[:, 0].tolist()]
