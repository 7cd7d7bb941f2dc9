"""Forwards states of one canvas, several in a pass, each in a call of its own.

A call has the very shape that slow decoding's pass over that state would have. With cached blocks
a state that goes on to the next block is forwarded together with the block it completes;
once it is verified, the keys of that block join the prefix.
"""

from collections.abc import Sequence

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.modes.static import CanvasState
from dllm_plugins.modes.static import LogitsAt
from dllm_plugins.modes.static import StaticDecoding


class Forwarding:
    """Looks at states, and keeps count of the prefix."""

    def __init__(self, canvas: Canvas, spec: ModelSpec, slow: StaticDecoding) -> None:
        self.canvas = canvas
        self.slow = slow
        self._shift = int(spec.shifted)
        self._frozen = 0
        self._keep = 0

    def forward(self, states: Sequence[CanvasState]) -> Dialogue[dict[CanvasState, LogitsAt]]:
        """What the model says of each state's open positions. The first state is certain."""
        positions = {state: self.slow.open(state) for state in states}
        if not self.slow.cached:
            segments = [self._whole(state, positions[state]) for state in states]
            answers = yield Pass(tuple(segments), "verify" if len(states) > 1 else "predict")
        else:
            states, answers = yield from self._blocks(states, positions)
        answered = zip(states, answers, strict=True)
        return {state: dict(zip(positions[state], answer.logits, strict=True)) for state, answer in answered}

    def _whole(self, state: CanvasState, positions: Sequence[int]) -> Segment:
        wanted = [max(position - self._shift, 0) for position in positions]
        return self.canvas.part(range(len(state.tokens)), wanted, tokens=state.tokens)

    def _blocks(
        self, states: Sequence[CanvasState], positions: dict[CanvasState, list[int]]
    ) -> Dialogue[tuple[list[CanvasState], list[Answer]]]:
        """One state that goes on to the next block comes first: only a pass's first segment can join the prefix."""
        crossing = [state for state in states if self._begin(state) > self._frozen][:1]
        ordered = [*crossing, *(state for state in states if self._begin(state) == self._frozen)]
        segments, count, kind = [], 0, "verify" if len(ordered) > 1 else "predict"
        for state in ordered:
            block, before = self.slow.blocks[state.block], range(self._frozen, self._begin(state))
            if before:
                count = len(before)
                groups = [position // self.slow.length for position in before]
                segments.append(self.canvas.part(before, groups=groups, tokens=state.tokens))
            behind = ((0, count),) if before else ()
            segments.append(self.canvas.part(block, positions[state], behind=behind, tokens=state.tokens))
        # A context that only a certain state has may join at once; another waits for the verdict.
        frozen = count if crossing and crossing[0] == states[0] else 0
        if frozen and not self._frozen:
            kind = "prefill"
        keep, self._keep = self._keep, 0
        answers = yield Pass(tuple(segments), kind, freeze=frozen, keep=keep)
        self._frozen, self._keep = self._frozen + frozen, count - frozen
        return ordered, answers[1:] if crossing else answers

    def commit(self, state: CanvasState) -> None:
        """Say that a state is verified: the keys of the blocks before its own may join the prefix in the next pass."""
        if self._keep and self._begin(state) > self._frozen:
            self._frozen += self._keep
        else:
            self._keep = 0

    def _begin(self, state: CanvasState) -> int:
        return self.slow.blocks[state.block].start
