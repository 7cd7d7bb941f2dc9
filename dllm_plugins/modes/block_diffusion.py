"""Mode `diffusion` of the default model: cached-prefix block diffusion, only the newest canvas is denoised.

The frontier, the position right behind the final text, is always predicted by a clean
row; open rows cover the `block_length` positions behind it, and a commit rule decides
which of them to commit. Contiguous committed tokens are final: they are forwarded once
more as clean rows together with the next canvas (freeze fused with predict).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.program import Ask
from dllm_plugins.decoding.program import Asks
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import Program
from dllm_plugins.decoding.program import frontier
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.modes.opened import Opened
from dllm_plugins.prediction import predict
from dllm_plugins.prediction import without
from dllm_plugins.processes.base import NoiseProcess
from dllm_plugins.rules.at_work import RulesAtWork


@dataclass(frozen=True, slots=True)
class Evidence:
    """The hidden state [width] and the step a token was committed by, and its left neighbour then (-1: open).

    :param logits: whether it was drawn from logits that were wanted, too.
    """

    hidden: Tensor
    step: int
    left: int
    logits: bool


#: Asks of a pass, and what comes of their answers.
Talk = Dialogue[Any]


class BlockDiffusion:
    """One row.

    :param evidence: by position, what tokens behind a gap were committed by.
    """

    def __init__(self, canvas: Canvas, length: int, rules: RulesAtWork, process: NoiseProcess, spec: ModelSpec) -> None:
        self.canvas = canvas
        self.row = canvas.row
        self.length = length
        self.rules = rules
        self.process = process
        self.spec = spec
        self.keeps = canvas.row.wants_logits or rules.wants_logits
        self.evidence: dict[int, Evidence] = {}
        self.suppressed: tuple[int, ...] = ()

    @property
    def tip(self) -> int:
        """The frontier: the first position that is open."""
        return len(self.row.tokens)

    @property
    def stop(self) -> int:
        """Where the text ends that is written now."""
        return self.row.end

    def release(self) -> None:
        """What has become contiguous is final."""
        self.canvas.release_committed()

    def window(self) -> range:
        """Positions behind the frontier that belong to the canvas: a block, up to the answer's end or a stop token."""
        begin = self.tip + 1
        end = min(begin + self.length, self.stop)
        tokens, stops = self.canvas.tokens, self.row.stop_ids
        return range(begin, next((position for position in range(begin, end) if tokens[position] in stops), end))

    def plan(self, kind: str, window: range) -> Pass:
        """Clean rows not cached yet, committed rows of the canvas, open rows."""
        row, tokens, opened = self.row, self.canvas.tokens, self.canvas.open(window)
        new = row.tokens[row.frozen :]
        segments = [Segment(row.handle, new, range(row.frozen, len(row.tokens)), wanted=(len(new) - 1,))]
        behind: tuple[tuple[int, int], ...] = ((0, len(new)),)
        committed = self.canvas.committed(window)
        if committed:
            segments.append(Segment(row.handle, [tokens[position] for position in committed], committed, behind=behind))
            behind += ((1, len(committed)),)
        asks: Asks = (frontier(self.row, onward=False),)
        if opened:
            noise = self.process.noised(len(opened), self.spec)
            segments.append(self.canvas.noisy(noise, [position - 1 for position in opened], behind))
            asks = (*asks, Ask(len(segments) - 1))
        return Pass(tuple(segments), kind, freeze=len(new), asks=asks)

    def commit(self, position: int, token: int, logits: Tensor | None) -> None:
        """Write a token; what became contiguous is final. Logits [V]."""
        self.canvas.write(position, token, logits)
        self.release()
        self.evidence = {position: found for position, found in self.evidence.items() if position >= self.tip}

    def reopen(self, position: int, token: int, left: int) -> Talk:
        """Reopen the right neighbour of `position` if it does not follow from `token`, which is about to stand there.

        It was committed while that position was open or held another token, and often is the
        very word that the position now gets. So it is drawn again, with the same noise and
        its left neighbour known; the same token twice is reopened in any case and left to
        a clean row.
        """
        past = self.evidence.get(position + 1)
        if not self.spec.draft_head or past is None or past.left == token:
            return
        del self.evidence[position + 1]
        draws = partial(self.row.canvas_draws, [position + 1], past.step)
        again = Ask(past.hidden[None], draws, torch.tensor([[token, left]]), past.logits, positions=[position + 1])
        [answer] = yield (again,)
        if answer.tokens[0] == token or answer.tokens[0] != self.canvas.tokens[position + 1]:
            self.canvas.reopen(position + 1)

    def commit_all(self, opened: Opened) -> Talk:
        """Ask the rule until it commits nothing more.

        When it wants two neighbours at once, the right one waits and is predicted again
        knowing the left one: without that, parallel decoding doubles words.
        """
        pending = list(range(len(opened.positions)))
        while pending:
            lefts = opened.known_before(1)
            answer = yield from self._predict(opened, pending, lefts)
            opened.take(pending, answer, lefts if self.spec.draft_head else None, self.rules.needs)
            pending = yield from self._decide(opened)

    def _predict(self, opened: Opened, indices: list[int], lefts: list[int]) -> Talk:
        farther, positions = opened.known_before(2), [opened.positions[index] for index in indices]
        ask = Ask(
            opened.hidden if len(indices) == len(opened.positions) else opened.hidden[indices],
            partial(self.row.canvas_draws, positions),
            torch.tensor([[lefts[index], farther[index]] for index in indices]),
            self.keeps,
            positions=positions,
        )
        if not (self.rules.rescores or self.suppressed):
            [answer] = yield (ask,)
            return answer
        [answer] = yield (replace(ask, draws=None, logits=True),)
        offsets = [position - self.row.prompt for position in positions]
        changed = without(self.rules.rescore(answer.logits, offsets, self.row.step), self.suppressed)
        return Answer(answer.hidden, predict(changed, self.row.canvas_draws(positions)))

    def _decide(self, opened: Opened) -> Talk:
        """Commit what the rule accepts; returns the indices to predict again."""
        chosen = self.rules.commit(opened.view(self.rules, self.length, self.row.step))
        taken = {opened.positions[index] for index in chosen}
        waits = {index for index in chosen if self.spec.draft_head and opened.positions[index] - 1 in taken}
        committed = [index for index in chosen if index not in waits]
        for index in committed:
            position, token, left = (
                opened.positions[index],
                opened.token[index],
                opened.known(opened.positions[index] - 1),
            )
            yield from self.reopen(position, token, left)
            if self.spec.draft_head and position > self.tip:
                self.evidence[position] = Evidence(opened.hidden[index], self.row.step, left, self.keeps)
            self.commit(position, token, opened.logits.get(index))
            opened.committed_now += 1
        if not self.spec.draft_head:
            return []
        just = {opened.positions[index] for index in committed}
        return [
            index
            for index, position in enumerate(opened.positions)
            if opened.known(position) < 0 and (index in waits or position - 1 in just)
        ]

    def read(self, answer: Answer, hidden: Tensor | None, positions: Sequence[int]) -> Talk:
        """Commit the frontier, then what the rule accepts; hidden [len(positions), width] of the open rows."""
        token, tip = answer.tokens[0], self.tip
        yield from self.reopen(tip, token, self.canvas.tokens[tip - 1])
        self.commit(tip, token, answer.logits[0] if answer.has_logits else None)
        self.canvas.guesses = {}
        if hidden is not None and token not in self.row.stop_ids:
            opened = Opened(self.canvas, hidden, list(positions))
            yield from self.commit_all(opened)
            self.canvas.guesses = dict(zip(positions, opened.token, strict=True))
            self.canvas.sure = dict(zip(positions, opened.measured["probability"].tolist(), strict=True))


def write_on(this: BlockDiffusion) -> Program:
    """Pass after pass; the window slides over the answer."""
    canvas, kind = this.canvas, "prefill"
    while True:
        window = this.window()
        canvas.shown, positions = window.stop, canvas.open(window)
        answer, *opened = yield this.plan(kind, window)
        yield from this.read(answer, opened[0].hidden if opened else None, positions)
        kind = "fused"
