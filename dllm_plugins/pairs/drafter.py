"""A diffusion model as the drafter of a pair: one pass over open positions behind a text, in a cache of its own.

What it says is verified, so its prefix may be cached as it was when it was the newest part of the text, also where the
model would compute that anew (as Fast-dLLM's prefix cache does, arXiv 2505.22618).
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

import torch
from torch import Tensor

from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.base import completed
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.kept_prefixes import common
from dllm_plugins.pairs.places import Places
from dllm_plugins.pairs.places import kind_of
from dllm_plugins.prediction import GREEDY
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import predict


@dataclass(slots=True)
class _Row:
    """What the drafter knows of a row: its own handle, the text, and how much of that is cached."""

    handle: int
    text: list[int] = field(default_factory=list)
    frozen: int = 0


class Drafter:
    """Drafts of a model, row by row of a pair.

    :param vocabulary: how many ids the target has, where both have one tokenizer. None where they have two: noise is
        the target's, by its ids, so that drafts are the likeliest tokens then, whatever the temperature.
    :raises OptionError: for a model that cannot draft.
    """

    def __init__(self, denoiser: Denoiser, vocabulary: int | None) -> None:
        self.denoiser = completed(denoiser)
        self.places = Places(denoiser.spec, kind_of(denoiser.spec))
        self._vocabulary = vocabulary
        self._rows: dict[int, _Row] = {}
        self._kept = KeptPrefixes(denoiser.spec.context)

    def draft(self, wanted: Mapping[int, tuple[list[int], Sequence[Draw]]]) -> dict[int, Tensor]:
        """What follows the text of each row, float64 [n, 2]: ids and probabilities; nothing where there is no room.

        :param wanted: by row, its text in the drafter's tokens and how what follows is drawn. Rows share the pass.
        """
        laid: dict[int, list[Segment]] = {}
        freeze: dict[int, int] = {}
        for number, (text, draws) in wanted.items():
            count = min(len(draws), self.places.room(len(text)))
            if count > 0 and all(0 <= token < self.denoiser.spec.vocabulary for token in text):
                row = self._row(number, text)
                laid[number], freeze[number] = self.places.laid(row.handle, text, row.frozen, count)
        hidden = iter(self.denoiser.forward([segment for own in laid.values() for segment in own]) if laid else [])
        found = {}
        for number, segments in laid.items():
            *_, said = [next(hidden) for _ in segments]
            row, (text, draws) = self._rows[number], wanted[number]
            if freeze[number]:
                self.denoiser.freeze(row.handle, freeze[number])
                row.frozen += freeze[number]
            found[number] = self._drawn(said, text, draws[: len(said)])
        return found

    def shared(self, number: int) -> bool | None:
        """Whether a row shared a call of the model in the last pass; None where nobody knows."""
        return self.denoiser.shared(self._rows[number].handle) if number in self._rows else None

    def close_row(self, number: int) -> None:
        """A row has ended; what is cached of it serves a text that begins alike."""
        row = self._rows.pop(number, None)
        if row is not None:
            state, length = self.denoiser.close_row(row.handle), self.places.usable(row.frozen)
            if length:
                self._kept.keep(row.text[:length], state)

    def _row(self, number: int, text: list[int]) -> _Row:
        """The row with this text, whose cache holds nothing but a part of it."""
        row = self._rows.get(number)
        if row is None:
            state, length = self._kept.find(text)
            length = self.places.usable(length)
            opened = self.denoiser.open_row(state, length) if length else self.denoiser.open_row()
            row = self._rows[number] = _Row(opened, frozen=length)
        elif (shared := min(row.frozen, common(row.text, text), len(text) - 1)) < row.frozen:
            # Two tokenizers: a word that has gone on is cut otherwise.
            state, row.frozen = self.denoiser.close_row(row.handle), self.places.usable(shared)
            row.handle = self.denoiser.open_row(state, row.frozen) if row.frozen else self.denoiser.open_row()
        row.text = text
        return row

    def _drawn(self, hidden: Tensor, text: list[int], draws: Sequence[Draw]) -> Tensor:
        """Ids and probabilities, float64 [n, 2]; hidden [n, width]."""
        if self.places.kind != "open":
            return self._predicted(self.denoiser.logits(hidden), draws)
        # Its head draws from left to right, knowing the two tokens before.
        known, found = [-1, *text[-2:]], []
        for place, draw in enumerate(draws):
            left = torch.tensor([[known[-1], known[-2]]])
            found.append(self._predicted(self.denoiser.logits(hidden[place : place + 1], left), [draw]))
            known.append(int(found[-1][0, 0]))
        return torch.cat(found)

    def _predicted(self, logits: Tensor, draws: Sequence[Draw]) -> Tensor:
        mask, size = self.denoiser.spec.mask_id, min(self._vocabulary or logits.shape[-1], logits.shape[-1])
        if self._vocabulary is None:
            draws = [GREEDY] * len(draws)
        # Noise has a number for every id of the target.
        ids = None if size == self._vocabulary else torch.arange(size, device=logits.device)
        found = predict(logits[:, :size], draws, ids, never=mask if mask < size else None)
        return torch.stack([found.token.double().cpu(), found.probability.double().cpu()], 1)
