"""A canvas that is denoised on a schedule: what `scheduled` asks for and writes beside its commit rule."""

from collections.abc import Mapping
from collections.abc import Sequence

import torch
from pydantic import Field
from pydantic import model_validator
from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.modes.drawing import draw_open
from dllm_plugins.modes.ids import TokenIds
from dllm_plugins.modes.llada import LladaSettings
from dllm_plugins.modes.llada import confidence
from dllm_plugins.modes.schedule import adaptive_length
from dllm_plugins.modes.schedule import commits_early
from dllm_plugins.modes.schedule import confident_end
from dllm_plugins.modes.schedule import delimiter_window
from dllm_plugins.modes.schedule import mean_gap
from dllm_plugins.modes.schedule import suffix_window
from dllm_plugins.modes.whole_canvas import WholeCanvas
from dllm_plugins.prediction import without


class ScheduledSettings(LladaSettings):
    """LLaDA's options and the schedules'."""

    delimiter_ids: TokenIds = Field((), description="a block ends at the surest of these (AdaBlock)")
    delimiter_threshold: float = Field(0.3, gt=0.0, le=1.0, description="if it is at least this probable")
    early_commit: tuple[float, float, float] | None = Field(
        None, description="logit gaps that let the whole answer be written, by thirds (Prophet: 7.5, 5, 2.5)"
    )
    answer_region: tuple[int, int] | None = Field(
        None, description="early_commit: watch the answer's tokens from the first to before the second"
    )
    eos_confidence: float | None = Field(
        None, gt=0.0, le=1.0, description="an end of text this probable ends the answer at once"
    )
    suffix_window: int | None = Field(None, ge=0, description="forward this many masks behind the block only (DPad)")

    @model_validator(mode="after")
    def _combine(self) -> "ScheduledSettings":
        given = self.model_fields_set
        for option, other, on in (
            ("delimiter_threshold", "delimiter_ids", bool(self.delimiter_ids)),
            ("answer_region", "early_commit", self.early_commit is not None),
        ):
            if option in given and not on:
                raise ValueError(f"{option}={getattr(self, option)} has no effect without {other}")
        if self.answer_region is not None and not 0 <= self.answer_region[0] < self.answer_region[1]:
            raise ValueError(f"answer_region={self.answer_region} is empty; give its first token and the one behind it")
        for option in ("delimiter_ids", "early_commit", "suffix_window"):
            if getattr(self, option) not in (None, ()) and self.approximate_cache is not None:
                raise ValueError(f"{option} needs whole passes; leave approximate_cache out")
        for one, other in (
            ("suffix_window", "early_commit"),
            ("suffix_window", "guidance"),
            ("eos_confidence", "revoke"),
            ("early_commit", "revoke"),
        ):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"{one} does not go with {other}; leave one of them out")
        return self


class Schedule:
    """One canvas under way.

    :param limit: where the answer ends as far as is known.
    """

    def __init__(self, canvas: Canvas, settings: ScheduledSettings, spec: ModelSpec) -> None:
        self.canvas = canvas
        self.settings = settings
        self.length = settings.block_length or spec.block_length
        self.limit = canvas.end
        self._view = WholeCanvas(canvas, spec, settings)
        self._shift = int(spec.shifted)

    def block(self, begin: int) -> range:
        """The block that begins here if no delimiter says otherwise."""
        return range(begin, min(begin + self.length, self.canvas.end))

    def open(self, block: range) -> bool:
        """Whether something of a block is still to be committed."""
        return bool(self.canvas.open(range(block.start, min(block.stop, self.limit))))

    def searched(self, begin: int) -> range:
        """Where a new block's delimiter is looked for."""
        canvas = self.canvas
        window = delimiter_window(canvas.end - canvas.prompt, canvas.end - begin) if self.settings.delimiter_ids else 0
        return range(begin, begin + window)

    def watched(self) -> list[int]:
        """Positions whose gap decides about an early commit."""
        region, prompt, end = self.settings.answer_region, self.canvas.prompt, self.canvas.end
        if self.settings.early_commit is None:
            return []
        return self.canvas.open(range(prompt, end)) if region is None else list(range(prompt, end))[slice(*region)]

    def within(self, positions: Sequence[int]) -> list[int]:
        """Those before the answer's end."""
        return [position for position in positions if position < self.limit]

    def more(self, positions: Sequence[int], searched: range, watched: Sequence[int]) -> list[int]:
        """What a pass is asked for beside `positions`: an early commit writes all that is open."""
        every = self.canvas.open(range(self.canvas.prompt, self.limit)) if watched else []
        return sorted({*searched, *watched, *every}.difference(positions))

    def forward(self, block: range, wanted: Sequence[int]) -> Dialogue[Tensor]:
        """Logits [len(wanted), V] at positions of a block, and of what lies behind it."""
        settings = self.settings
        if settings.suffix_window is None:
            logits = (yield from self._view.forward(wanted, block)).logits
        else:
            stop = max([block.stop, *(position + 1 for position in wanted)])
            seen = suffix_window(stop, settings.suffix_window, self.canvas.end, len(self.canvas.tokens))
            shifted = [max(position - self._shift, 0) for position in wanted]
            logits = (yield Pass((self.canvas.part(seen, shifted),)))[0].logits
        return without(logits, settings.suppress_tokens)

    def drawn(self, positions: Sequence[int], logits: Tensor) -> tuple[list[int], Tensor]:
        """The tokens that this pass draws, and the probability [N] of each."""
        token = draw_open(self.canvas, logits, positions)
        return token.tolist(), confidence(logits, token, self.settings.late_tokens, logits.dtype)

    def ending(self, block: range, searched: range, logits_at: Mapping[int, Tensor]) -> range:
        """A block of which the first pass has just been made, as long as its delimiter says."""
        if not searched:
            return block
        logits = torch.stack([logits_at[position] for position in searched])
        tokens, sure = self.drawn(searched, logits)
        length = adaptive_length(tokens, sure, self.settings.delimiter_ids, self.settings.delimiter_threshold)
        return block if length is None else range(block.start, block.start + length)

    def end_early(self, positions: list[int], logits: Tensor) -> tuple[list[int], Tensor]:
        """Write a confident end of text, and ask for nothing behind it; what is left of positions and their logits."""
        if self.settings.eos_confidence is None:
            return positions, logits
        tokens, sure = self.drawn(positions, logits)
        found = confident_end(tokens, sure, self.canvas.row.stop_ids, self.settings.eos_confidence)
        if found is None:
            return positions, logits
        self.limit = positions[found] + 1
        self.canvas.write(positions[found], tokens[found], logits[found])
        return positions[:found], logits[:found]

    def commit_early(self, watched: Sequence[int], logits_at: Mapping[int, Tensor]) -> None:
        """Write all that is open if the answer is clear."""
        canvas, thresholds = self.canvas, self.settings.early_commit
        positions = [position for position in canvas.open(range(canvas.prompt, self.limit)) if position in logits_at]
        if thresholds is None or not watched or not positions:
            return
        gap = mean_gap(canvas.drawable(torch.stack([logits_at[position] for position in watched])))
        size = canvas.end - canvas.prompt
        if commits_early(gap, 1 - len(canvas.open(range(canvas.prompt, canvas.end))) / size, thresholds):
            logits = torch.stack([logits_at[position] for position in positions])
            for position, token, source in zip(positions, self.drawn(positions, logits)[0], logits, strict=True):
                canvas.write(position, token, source)
