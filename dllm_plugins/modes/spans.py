"""Which parts of an answer are denoised together, and how to look at them, whatever the attention.

A bidirectional checkpoint sees the whole canvas; its answer is one part, or blocks if they
are asked for. A block-causal one has blocks, with everything before them cached exactly.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import Option
from dllm_plugins.messages import message
from dllm_plugins.modes.blocks import Blocks
from dllm_plugins.modes.llada import blocks_of
from dllm_plugins.modes.whole_canvas import WholeCanvas
from dllm_plugins.modes.whole_canvas import WholeCanvasSettings
from dllm_plugins.prediction import distribution
from dllm_plugins.prediction import predict

#: What they fit; see :class:`~dllm_plugins.families.layout.Layout`.
ATTENTION = frozenset({"bidirectional", "own", "block-causal", "causal context, bidirectional block"})


class SpanSettings(WholeCanvasSettings):
    """Options of samplers that fit either attention."""

    block_length: int | None = Field(
        None, description="positions denoised together; the whole answer if the model sees it all"
    )
    steps: int | None = Field(None, description="steps a part is spread over; as many as it has open positions")


def behind_prompt(spec: ModelSpec) -> Literal["blocks", "causal"] | None:
    """What finished text sees in checkpoints whose blocks begin at the prompt's end; None if theirs do not.

    Only a checkpoint's own sampler tells: A2D checkpoints made for BD3LM look like those for MDLM.
    """
    own = spec.samplers.get("diffusion", "")
    return "blocks" if own == "bd3lm" else "causal" if own.startswith("nemotron") else None


def in_blocks(spec: ModelSpec) -> bool:
    """Whether finished blocks never see later ones."""
    return spec.cache == "exact" or behind_prompt(spec) is not None


def fit(settings: SpanSettings, _config: SamplingConfig, spec: ModelSpec) -> None:
    """Refuse what only whole passes can do.

    :raises OptionError: naming the option.
    """
    for option in ("guidance", "approximate_cache"):
        value = getattr(settings, option)
        if value is not None and in_blocks(spec):
            raise OptionError(
                message(
                    "{}={!r} does not fit {}, whose blocks are cached; leave it out", Option(option), value, spec.name
                )
            )


class Spans:
    """Iterates over the parts of one canvas, left to right."""

    def __init__(self, canvas: Canvas, spec: ModelSpec, settings: SpanSettings) -> None:
        self.canvas = canvas
        self._view = WholeCanvas(canvas, spec, settings)
        self._blocks: Blocks | None = None
        if in_blocks(spec):
            context = behind_prompt(spec)
            self._blocks = Blocks(
                canvas,
                settings.block_length or spec.block_length,
                anchor=canvas.prompt if context else 0,
                context=context or "blocks",
                shift=int(spec.shifted),
            )
            # BD3LM's last block is as long as the answer; all others are trained on whole ones.
            self._spans = self._blocks.answer(whole=context != "blocks")
        else:
            self._spans = blocks_of(canvas, settings.block_length or canvas.end - canvas.prompt)

    def __iter__(self) -> Iterator[range]:
        """Each without the part of the prompt that its block may hold."""
        for span in self._spans:
            yield range(max(span.start, self.canvas.prompt), span.stop)

    def forward(self, span: range, positions: Sequence[int]) -> Dialogue[Tensor]:
        """Logits [len(positions), V] at positions of a part."""
        if self._blocks is None:
            return (yield from self._view.forward(positions, span)).logits
        block = next(block for block in self._spans if block.stop == span.stop)
        return (yield from self._blocks.forward(block, positions)).logits

    def commit(self, span: range, positions: Sequence[int], step: int) -> Dialogue[Tensor]:
        """Draw and write a token at each of these positions; the probability [len(positions)] each was drawn with.

        :param step: what the draws are keyed on: passes do not count steps, of which some need none.
        """
        if not positions:
            return torch.empty(0, dtype=torch.float64)
        logits = self.canvas.drawable((yield from self.forward(span, positions)))
        draws = self.canvas.row.canvas_draws(positions, step)
        token = predict(logits, draws).token
        for position, drawn, source in zip(positions, token.tolist(), logits, strict=True):
            self.canvas.write(position, drawn, source)
        return distribution(logits, draws).gather(1, token[:, None])[:, 0].double().cpu()

    def reopen(self, positions: Sequence[int]) -> None:
        """Committed positions are masks again."""
        for position in positions:
            self.canvas.write(position, self.canvas.mask)
