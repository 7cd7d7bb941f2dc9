"""AR-verified diffusion drafts: the text of mode `ar` in fewer passes.

One pass holds the clean rows [last token, d1 ... dk] and, behind each of them, a group
of open rows that drafts what follows it, so verifying and drafting share the pass (as
in TiDAR, arXiv 2511.08923; our layout: docs/default-model.md). Drafts are accepted
while they equal what the clean rows themselves draw, with noise keyed on the position,
so sampled text equals sampled AR text too. Where clean and open rows cannot share a call,
the two take turns: one pass verifies, the next one drafts behind what was accepted.
"""

from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.program import Ask
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.modes.ar import frontier
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.processes.base import NoiseProcess


class SpeculativeSettings(Settings):
    """Options of speculative decoding."""

    draft_length: int | None = Field(None, description="most drafts a pass verifies")


class _Speculation:
    """One row: drafts stand on its canvas behind the final text."""

    def __init__(self, process: NoiseProcess, canvas: Canvas, length: int, spec: ModelSpec) -> None:
        self.process = process
        self.canvas = canvas
        self.row = canvas.row
        self.length = length
        self.spec = spec
        self.frozen = canvas.row.frozen

    def worth(self, accepted: int) -> int:
        """How many drafts are worth making once `accepted` drafts and one more token are final."""
        return max(0, min(self.length, self.row.remaining - accepted - 1))

    def group(self, position: int, size: int, behind: tuple[tuple[int, int], ...] = ()) -> Segment:
        """Open rows that draft what follows the token at `position`, whose own row is not needed."""
        return self.canvas.noisy(self.process.noised(size, self.spec), range(position, position + size), behind)

    def verify(self, kind: str, keep: int) -> Pass:
        """Clean rows (what is not cached, then the drafts) and one group behind each candidate."""
        row, clean = self.row, self.canvas.tokens[self.frozen :]
        drafts = len(self.canvas.tokens) - len(row.tokens)
        first = len(clean) - drafts - 1
        positions = range(self.frozen, len(self.canvas.tokens))
        segments = [Segment(row.handle, clean, positions, wanted=range(first, len(clean)))]
        for accepted in range(drafts + 1 if self.spec.mixes else 0):
            size = self.worth(accepted)
            if size:
                segments.append(self.group(len(row.tokens) + accepted, size, ((0, first + accepted + 1),)))
        asks = (frontier(self.canvas, drafts), *(Ask(of) for of in range(1, len(segments))))
        return Pass(tuple(segments), kind, keep=keep, asks=asks)

    def accept(self, answer: Answer) -> int:
        """Take over the drafts that equal what was said, and the token behind them; how many drafts."""
        drafts, count = self.canvas.tokens[len(self.row.tokens) :], 0
        while count < len(drafts) and drafts[count] == answer.tokens[count]:
            count += 1
        self.canvas.append(answer, count + 1)
        return count

    def draft(self, hidden: Tensor) -> Dialogue[None]:
        """Draw drafts left to right, each knowing the two tokens before it; hidden [n, width]."""
        tokens = self.canvas.tokens
        for position in range(len(hidden)):
            left = torch.tensor([(*tokens[-1:-3:-1], -1)[:2]])
            draws = partial(self.canvas.row.draws, [len(tokens)])
            [answer] = yield (Ask(hidden[position : position + 1], draws, left, shortlist=True),)
            tokens.append(answer.tokens[0])


def start(process: NoiseProcess, canvas: Canvas, settings: SpeculativeSettings, spec: ModelSpec) -> Program:
    """Verify, accept, draft again behind the last accepted token."""
    row, length, keep = canvas.row, settings.draft_length or spec.draft_length, 0
    canvas.cut(row.prompt)
    this, kind = _Speculation(process, canvas, length, spec), "prefill"
    while True:
        answer, *groups = yield this.verify(kind, keep)
        final, kind = len(row.tokens), "verify"
        count = this.accept(answer)
        keep, this.frozen = final + count - this.frozen, final + count
        if count < len(groups):
            yield from this.draft(groups[count].hidden)
        elif not spec.mixes and (size := this.worth(0)):
            [group] = yield Pass((this.group(len(row.tokens) - 1, size),), "draft", keep=keep, asks=(Ask(),))
            yield from this.draft(group.hidden)
            keep = 0


def sampler(process: NoiseProcess) -> Sampler:
    """It, on a process that says what an open position holds."""
    return Sampler(
        name="speculative",
        summary="diffusion drafts, verified autoregressively: the text of ar in fewer passes",
        source="TiDAR, arXiv 2511.08923; the layout is ours",
        settings=SpeculativeSettings,
        start=partial(start, process),
        keeps_prefix=True,
    )
