"""A commit rule, and perhaps a revocation rule, at work on one canvas."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import LOGITS
from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.program import Ask
from dllm_plugins.modes.base import Settings
from dllm_plugins.modes.drawing import ask
from dllm_plugins.modes.drawing import drawn
from dllm_plugins.rules.at_work import Rules
from dllm_plugins.rules.at_work import seen_of
from dllm_plugins.rules.view import Positions

#: Passes over a block, per position, after which nothing is reopened any more: a rule
#: that goes round in circles must not hold a request for ever.
PATIENCE = 4

#: Probability [N] of drawn tokens [N] given logits [N, V].
Confidence = Callable[[Tensor, Tensor], Tensor]


class CommitSettings(Settings):
    """Options of every sampler that asks a rule what to commit; defaults are the rule's own."""

    block_length: int | None = Field(None, description="positions denoised together")
    rule: str | None = Field(None, description="commit rule")
    steps: int | None = Field(
        None, description="passes a block is spread over (rules quota, random, margin, position_aware)"
    )
    threshold: float | None = Field(None, description="probability that commits (rule threshold)")
    factor: float | None = Field(None, description="larger commits more a pass (rule factor)")
    rule_options: dict[str, Any] | None = Field(None, description="parameters of the commit rule")


class RuledSettings(CommitSettings):
    """Those of samplers that can take tokens back, too."""

    revoke: str | None = Field(None, description="revocation rule")
    revoke_options: dict[str, Any] | None = Field(None, description="parameters of the revocation rule")


class Ruled:
    """Commits and reopens positions of one canvas as its rules say.

    :param confidence: how sure the model is of each drawn token.
    :param coarse: whether that has the logits' dtype.
    """

    def __init__(self, canvas: Canvas, rules: Rules, confidence: Confidence, *, coarse: bool = False) -> None:
        self.canvas = canvas
        self.rules = rules.at_work(canvas.row)
        self.confidence = confidence
        self.coarse = coarse
        self._block = range(0)
        self._step = 0

    def positions(self, block: range) -> list[int]:
        """Positions of the answer that are asked about: open ones, all if some may be reopened."""
        inside = range(max(block.start, self.canvas.prompt), block.stop)
        return self.canvas.open(inside) if self.rules.revocation is None else self.canvas.free(inside)

    def ask(self, positions: Sequence[int]) -> Ask:
        """What the rules and the request need to know of some positions."""
        return LOGITS if self.rules.rescores else ask(self.canvas, positions, logits=self.rules.wants_logits)

    def commit(self, block: range, positions: Sequence[int], answer: Answer, *, hasty: bool = False) -> None:
        """Write what the rules decide about a block.

        :param answer: to what was asked of the positions; tokens are drawn from its logits if they are not there yet.
        :param hasty: commit the last open position along with all others.
        """
        if block != self._block:
            self._block, self._step = block, 0
        canvas, rules = self.canvas, self.rules
        opened = set(canvas.open(positions))
        if not answer.drawn:
            offsets = [position - canvas.prompt for position in positions]
            answer = drawn(canvas, rules.rescore(answer.logits, offsets, self._step), positions)
        seen = seen_of(answer, torch.tensor(positions) - block.start, self._sure(answer), rules.needs)
        view = rules.view(self._positions(block, opened), seen, committed_now=0, step=self._step)
        chosen = {block.start + item for item in rules.commit(view)}
        if hasty and len(chosen) == len(opened) - 1:
            chosen = opened
        reopened = {block.start + item for item in rules.revoke(view)}
        if self._step >= PATIENCE * len(block):
            reopened = set()
        for number, position in enumerate(positions):
            if position in chosen or (position in reopened and rules.revocation and rules.revocation.replaces):
                canvas.write(position, answer.tokens[number], answer.source(number))
            elif position in reopened:
                canvas.reopen(position)
        self._step += 1
        if rules.revocation is None:
            canvas.release_committed()

    def _sure(self, answer: Answer) -> Tensor:
        """How sure the model is of each token: as this sampler measures it where there are logits."""
        if answer.has_logits:
            return self.confidence(answer.logits, answer.token)
        return answer.coarse_probability() if self.coarse else answer.probability

    def _positions(self, block: range, opened: set[int]) -> Positions:
        answer = [self.canvas.prompt <= position for position in block]
        return Positions(
            tokens=[self.canvas.tokens[position] for position in block],
            open=[position in opened for position in block],
            committed=[
                inside and position < self.canvas.end and position not in opened and position not in self.canvas.given
                for position, inside in zip(block, answer, strict=True)
            ],
            position=[
                position - self.canvas.prompt if inside else -1 for position, inside in zip(block, answer, strict=True)
            ],
        )
