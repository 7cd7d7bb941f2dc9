"""WINO: reveal widely, then let every revealed token be doubted (arXiv 2507.18578).

Source: Feng-Hong/WINO-DLLM 9549a1d `LLaDA/decoding.py`. A pass reveals all that is more
probable than `threshold`. Behind the canvas it carries one shadow per position of the
block: a mask at that very position, which sees everything but the token there, the other
shadows included, while nothing else sees the shadows. A revealed token less probable than
`threshold_back` to its shadow opens again, always fewer than the pass before revealed, so
that every block ends. A block's text is final when none of it is open.

The reference knows whole canvases; the same with cached blocks is ours. Shadows are left
out where nothing is revealed yet, since only their verdicts could matter.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import Field
from pydantic import model_validator
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import LOGITS
from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import OptionError
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.blocks import Blocks
from dllm_plugins.modes.drawing import draw_open
from dllm_plugins.modes.llada import blocks_of
from dllm_plugins.modes.whole_canvas import WholeCanvas
from dllm_plugins.modes.whole_canvas import WholeCanvasSettings
from dllm_plugins.prediction import probability_of

#: How many a block's first pass may be thought to have come after, and the fewest `max_accept` goes down to.
FIRST_ACCEPTED, FEWEST = 30, 5


class WinoSettings(WholeCanvasSettings):
    """Options of WINO."""

    block_length: int | None = Field(None, description="positions denoised together")
    threshold: float = Field(0.6, description="reveal what is more probable")
    threshold_back: float = Field(0.9, gt=0.0, le=1.0, description="open what its shadow finds less probable")
    max_accept: int = Field(20, ge=1, description="most tokens a pass reveals; 0.7 of what is open, if that is fewer")

    @model_validator(mode="after")
    def _no_guidance(self) -> "WinoSettings":
        if self.guidance is not None:
            raise ValueError(f"guidance={self.guidance} does not go with shadows; leave it out")
        return self


def accepted(confidence: Tensor, threshold: float, most: int) -> list[int]:
    """Which of the open positions a pass reveals, likeliest first if there are too many; confidence [N]."""
    limit = min(max(len(confidence) * 7 // 10, FEWEST), most)
    found = (confidence > threshold).nonzero()[:, 0]
    if len(found) > limit:
        found = torch.topk(confidence, limit).indices
    elif not len(found):
        found = confidence.argmax()[None]
    chosen: list[int] = found.tolist()
    return chosen


def doubted(confidence: Tensor, threshold: float, before: int) -> list[int]:
    """Which revealed tokens open again: fewer than the `before` that the last pass revealed; confidence [N]."""
    found = (confidence < threshold).nonzero()[:, 0]
    if len(found) >= before:
        found = torch.topk(confidence, before - 1, largest=False).indices
    chosen: list[int] = found.tolist()
    return chosen


class Shadowed:
    """Looks at a block and at what its shadows say, in one pass."""

    def __init__(self, canvas: Canvas, spec: ModelSpec, settings: WinoSettings) -> None:
        self.canvas = canvas
        length = settings.block_length or spec.block_length
        self._blocks = Blocks(canvas, length) if spec.cache == "exact" else None
        self._view = WholeCanvas(canvas, spec, settings)
        self.blocks = blocks_of(canvas, length) if self._blocks is None else self._blocks.answer()

    def forward(
        self, block: range, positions: Sequence[int], revealed: Sequence[int]
    ) -> Dialogue[tuple[Tensor, Tensor | None]]:
        """Logits [N, V] of open `positions`, and those [M, V] of the shadows of `revealed` ones, None without any."""
        way = self._view if self._blocks is None else self._blocks
        forwarding = way.forward(positions, block) if isinstance(way, WholeCanvas) else way.forward(block, positions)
        wanted = next(forwarding)
        assert isinstance(wanted, Pass), "a forward begins with its pass"
        if revealed:
            shadows = self._shadows(block, revealed, wanted.segments)
            asks = (*(wanted.asks or ()), replace(LOGITS, of=len(wanted.segments)))
            wanted = replace(wanted, segments=(*wanted.segments, shadows), asks=asks)
        answers = yield wanted
        doubts = answers.pop().logits if revealed else None
        try:
            forwarding.send(answers)
        except StopIteration as ended:
            found: Answer = ended.value
            return found.logits, doubts
        raise AssertionError("one pass per forward")

    def _shadows(self, block: range, revealed: Sequence[int], segments: Sequence[Segment]) -> Segment:
        """One mask per position of the block that is not the prompt's."""
        newest, last = segments[-1], len(segments) - 1
        positions = range(max(block.start, self.canvas.prompt), block.stop)
        index = {position: number for number, position in enumerate(newest.positions)}
        return Segment(
            newest.row,
            [self.canvas.mask] * len(positions),
            positions,
            noisy=True,
            causal=False,
            behind=(*newest.behind, (last, len(newest.tokens))),
            wanted=[position - positions.start for position in revealed],
            apart=[index[position] for position in positions],
        )


def start(canvas: Canvas, settings: WinoSettings, spec: ModelSpec) -> Program:
    """Block after block; a finished one is final."""
    shadowed = Shadowed(canvas, spec, settings)
    for block in shadowed.blocks:
        before = FIRST_ACCEPTED
        own = range(max(block.start, canvas.prompt), block.stop)
        while canvas.wanting(block):
            positions = canvas.open(block)
            revealed = canvas.committed(own)
            logits, doubts = yield from shadowed.forward(block, positions, revealed)
            chosen = reveal(canvas, settings, positions, logits)
            if doubts is not None and chosen > 1:
                tokens = torch.tensor([canvas.tokens[position] for position in revealed], device=doubts.device)
                for index in doubted(probability(doubts, tokens), settings.threshold_back, before):
                    canvas.write(revealed[index], canvas.mask)
            before = chosen
        canvas.release(block.stop)


def reveal(canvas: Canvas, settings: WinoSettings, positions: Sequence[int], logits: Tensor) -> int:
    """Write what a pass accepts, and say how much that was; logits [N, V]."""
    tokens = draw_open(canvas, logits, positions)
    chosen = accepted(probability(logits, tokens), settings.threshold, settings.max_accept)
    for index in chosen:
        canvas.write(positions[index], int(tokens[index]), logits[index])
    return len(chosen)


def probability(logits: Tensor, tokens: Tensor) -> Tensor:
    """Probability [N] of tokens [N], in float64 as the reference; logits [N, V]."""
    return probability_of(logits, tokens, torch.float64).cpu()


def fit(_settings: WinoSettings, _config: SamplingConfig, spec: ModelSpec) -> None:
    """Refuse models whose rows do not predict their own position: a shadow stands where its token stands.

    :raises OptionError: for a shifted model.
    """
    if spec.shifted:
        raise OptionError(f"mode 'wino' does not fit {spec.name}, which predicts a position at its left neighbour")


SAMPLER = Sampler(
    name="wino",
    summary="reveals widely; shadow masks in the same pass take doubtful tokens back",
    source="Feng-Hong/WINO-DLLM 9549a1d LLaDA/decoding.py (arXiv 2507.18578)",
    settings=WinoSettings,
    start=start,
    unheld=None,
    suffix=True,
    attention=frozenset({"bidirectional", "block-causal"}),
    shifted=frozenset(),
    fit=fit,
)
