"""A pair as one denoiser: segments that ask for drafts go to its drafter, all others to its target."""

import time
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import FullDenoiser
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import PrefixState
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.base import completed
from dllm_plugins.messages import message
from dllm_plugins.pairs.bridge import Bridge
from dllm_plugins.pairs.drafter import Drafter
from dllm_plugins.pairs.guests import Guests
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import Predictions

#: Drafts of a pass, unless the request or the pair says otherwise.
DRAFT_LENGTH = 4


class PairDenoiser(FullDenoiser):
    """See :class:`~dllm_plugins.denoisers.base.Denoiser`; hidden states, keys and logits are the target's.

    :param target: whose mode `ar` the text is that of.
    :param drafter: of the other model.
    :param bridge: between the tokens of both.
    :param guests: what the other model writes itself.
    :param draft_length: drafts of a pass where a request says nothing.
    """

    def __init__(
        self,
        target: Denoiser,
        drafter: Drafter,
        bridge: Bridge,
        guests: Guests,
        name: str,
        draft_length: int = DRAFT_LENGTH,
    ) -> None:
        self.target = completed(target)
        self.drafter = drafter
        self.bridge = bridge
        self.guests = guests
        self.spec = _spec(target.spec, drafter.denoiser.spec, name, draft_length)
        # What each row's target has made final, as far as its drafter was told.
        self._texts: dict[int, list[int]] = {}
        self._drafted: frozenset[int] = frozenset()
        self._forwarded: frozenset[int] = frozenset()
        self._visited: frozenset[int] = frozenset()
        self._seconds = 0.0

    def open_row(self, prefix: PrefixState | None = None, length: int = 0) -> int:
        """A handle with an empty prefix, or with a copy of the first `length` positions of a kept one."""
        return self.target.open_row(prefix, length)

    def close_row(self, row: int) -> PrefixState:
        """End a row and hand out its prefix in the target; the drafter keeps its own."""
        self._texts.pop(row, None)
        try:
            self.guests.close(row)
            self.drafter.close_row(row)
        finally:
            state = self.target.close_row(row)
        return state

    def forward(self, segments: Sequence[Segment]) -> list[Tensor]:
        """One pass of either model, or of both for different rows; see the protocol."""
        visits = {segment.row: segment.guest for segment in segments if segment.guest is not None}
        asked = {segment.row: segment for segment in segments if segment.draws is not None}
        own = [place for place, segment in enumerate(segments) if segment.row not in visits and segment.draws is None]
        found: dict[int, Tensor] = {}
        if own:
            hidden = self.target.forward([segments[place] for place in own])
            found = dict(zip(own, hidden, strict=True))
        if visits:
            self.guests.advance(visits)
        self._visited, drafts = frozenset(visits), self._draft(asked)
        nothing = torch.empty(0, 0)
        return [
            found[place] if place in found else drafts.get(segment.row, nothing)
            for place, segment in enumerate(segments)
        ]

    def _draft(self, asked: Mapping[int, Segment]) -> dict[int, Tensor]:
        """Drafts of each row, in the target's tokens; float64 [n, 2]."""
        began = time.perf_counter()
        wanted: dict[int, tuple[list[int], Sequence[Draw]]] = {}
        for row, segment in asked.items():
            text = self._texts.setdefault(row, [])
            text[segment.positions[0] :] = segment.tokens
            over = self.bridge.over(text)
            if over is not None:
                wanted[row] = over, segment.draws or ()
        said = self.drafter.draft(wanted)
        self._drafted, self._forwarded = frozenset(asked), frozenset(said)
        found = {row: self.bridge.back(self._texts[row], wanted[row][0], drafts) for row, drafts in said.items()}
        self._seconds += time.perf_counter() - began
        nothing = torch.empty(0, 2, dtype=torch.float64)
        return {row: found.get(row, nothing)[: len(segment.draws or ())] for row, segment in asked.items()}

    def freeze(self, row: int, count: int) -> None:
        """The first `count` tokens of the row's first segment of the target's last pass join its prefix."""
        self.target.freeze(row, count)

    def hold(self, row: int, indices: Sequence[int]) -> None:
        """As the target does."""
        self.target.hold(row, indices)

    def release(self, row: int) -> None:
        """As the target does."""
        self.target.release(row)

    def logits(self, hidden: Tensor, left: Tensor | None = None) -> Tensor:
        """The target's logits [N, vocabulary]."""
        return self.target.logits(hidden, left)

    def draft_logits(self, hidden: Tensor, left: Tensor) -> tuple[Tensor, Tensor | None]:
        """The target's; nobody asks, drafts come as tokens."""
        return self.target.draft_logits(hidden, left)

    def unmask(self, hidden: Tensor, draws: Sequence[Draw], left: Tensor | None = None) -> Predictions | None:
        """As the target does."""
        return self.target.unmask(hidden, draws, left)

    def rounds(self, row: int, kind: str) -> Mapping[str, int]:
        """Calls of the target by their kinds, calls of the other model as `draft` or `guest`."""
        if row in self._visited:
            return {kind: 1}
        if row in self._drafted:
            return {"draft": 1} if row in self._forwarded else {}
        return self.target.rounds(row, kind)

    def shared(self, row: int) -> bool | None:
        """Whether the row shared a call of the model that it asked."""
        if row in self._visited:
            return len(self._visited) > 1 if self.drafter.denoiser.spec.batched else None
        return self.drafter.shared(row) if row in self._drafted else self.target.shared(row)

    def timings(self) -> Mapping[str, float]:
        """The target's, and all that drafts took as `draft`."""
        seconds, self._seconds = self._seconds, 0.0
        return {**self.target.timings(), "draft": seconds}

    def keys_bytes(self, rows: Sequence[int]) -> int | None:
        """Of both models."""
        each = self.target.keys_bytes(rows), self.drafter.denoiser.keys_bytes(rows)
        return None if each[0] is None or each[1] is None else each[0] + each[1]

    def close(self) -> None:
        """Give back what both hold."""
        self.target.close()
        self.drafter.denoiser.close()


def _spec(target: ModelSpec, other: ModelSpec, name: str, draft_length: int) -> ModelSpec:
    """The target as the engine sees it in a pair: it verifies drafts, or decodes by itself; and what the other can."""
    own = ("pair", "ar", "alternating")
    others = {mode: other for mode in other.modes if mode not in own}
    return replace(
        target,
        name=name,
        modes=(*own, *others),
        samplers={"pair": "pair", "ar": target.samplers.get("ar", "ar")}
        | {mode: other.samplers.get(mode, mode) for mode in others},
        refused={
            mode: message(
                "a pair decodes in modes {}; load {} by itself for this one", ", ".join((*own, *others)), target.name
            )
            for mode in target.modes
        },
        mixes=False,
        draft_head=False,
        draft_length=draft_length,
        others=others,
        target=target.name,
    )
