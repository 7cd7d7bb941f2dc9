"""DreamOn's sampler: holes that grow and shrink while they are filled.

Source: DreamLM/DreamOn 8a0a549 `eval/generator.py`. One position is committed a pass. An
expand token becomes two open positions; an end of text inside the hole goes, and takes
what is open behind it along. Only the window that is in use is forwarded. The reference has
one hole; several, and holes of a fixed length, which neither grow nor end, are ours. So are
constraints, under which holes grow, and go, where a gap can still be completed then.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.decoding.row import OpenGap
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import Option
from dllm_plugins.messages import message
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.modes.confidence import DREAM
from dllm_plugins.modes.confidence import measure
from dllm_plugins.modes.confidence import surest
from dllm_plugins.modes.ids import TokenId
from dllm_plugins.modes.whole_canvas import WholeCanvas

#: The token of the published checkpoint that becomes two open positions.
EXPAND = 151667
_BLOCKED = 1e9
_SHORTEST = 4


class DreamOnSettings(Settings):
    """Options of DreamOn's sampler; `max_new_tokens` is the longest the hole may get."""

    steps: int | None = Field(None, ge=1, description="most passes; the answer ends at what is still open then")
    alg: Literal["maskgit_plus", "topk_margin", "entropy"] = Field("entropy", description="what makes a position sure")
    alg_temp: float | None = Field(None, ge=0.0, description="above 0: draw the position, the surest more likely")
    min_gen_len: int | None = Field(None, ge=1, description="open positions in the beginning; 4 if not given")
    expand_budget: int | None = Field(None, ge=0, description="most expansions; max_new_tokens if not given")
    pad_eos_to_right: bool = Field(default=True, description="what is open behind an end of text becomes one too")
    delete_eos_token: bool = Field(default=True, description="ends of text in the hole are taken out")
    expand_token_id: int | None = Field(
        None, ge=0, description=f"id that becomes two open positions; the checkpoint's, or {EXPAND}, if not given"
    )
    eos_token_id: TokenId = Field(None, description="end of text; the checkpoint's if not given")


def expand_id(spec: ModelSpec, asked: int | None = None) -> int:
    """The token that becomes two open positions: as it was asked for, else as the checkpoint's config says."""
    return spec.ids.get("expand_token_id", EXPAND) if asked is None else asked


class Holes:
    """The gaps on the canvas, as long as they are now; what each token between the first and the last was drawn from.

    A request without a template has one, of `max_new_tokens` at most.
    """

    def __init__(self, canvas: Canvas, settings: DreamOnSettings) -> None:
        self.canvas, row = canvas, canvas.row
        self.templated = bool(row.gaps)
        if not row.gaps:
            row.gaps = (OpenGap(canvas.prompt, canvas.end, canvas.end - canvas.prompt, bounded=True),)
        self.gaps = row.gaps
        rooms = sum(gap.room for gap in self.gaps)
        self.budget = rooms if settings.expand_budget is None else settings.expand_budget
        for gap in self.gaps:
            if gap.bounded:
                canvas.splice(gap.start, gap.stop, min(settings.min_gen_len or _SHORTEST, gap.room))
        self.sources: list[Tensor | None] = [None] * (canvas.end - canvas.prompt)

    @property
    def positions(self) -> list[int]:
        """Those of all gaps."""
        return [position for gap in self.gaps for position in gap.positions]

    def of(self, position: int) -> OpenGap:
        """The gap that holds a position."""
        return next(gap for gap in self.gaps if position in gap.positions)

    def full(self, position: int) -> bool:
        """Whether the gap here may not grow any more."""
        gap = self.of(position)
        # A gap that is held to something may have to grow beyond that.
        held = gap.constraint is not None or self.canvas.row.config.constraint is not None
        return len(gap.positions) == gap.room or (self.budget <= 0 and not held)

    def put(self, position: int, token: int, logits: Tensor) -> None:
        """Commit a position."""
        self.canvas.write(position, token)
        self.sources[position - self.canvas.prompt] = logits

    def replace(self, position: int, count: int) -> None:
        """Open positions in place of one."""
        index = position - self.canvas.prompt
        self.canvas.splice(position, position + 1, count)
        self.sources[index : index + 1] = [None] * count

    def release(self) -> None:
        """Everything before the first open position is final: nothing in front of it moves again."""
        canvas, row = self.canvas, self.canvas.row
        final = len(row.tokens)
        canvas.release_committed()
        for position in range(final, canvas.end) if row.wants_logits else ():
            # What is not final may have moved.
            row.note(position, canvas.tokens[position], self.sources[position - canvas.prompt])


def start(canvas: Canvas, settings: DreamOnSettings, spec: ModelSpec) -> Program:
    """One position a pass, until nothing in the gaps is open."""
    holes, view, left = Holes(canvas, settings), WholeCanvas(canvas, spec), settings.steps
    end_of_text = spec.eos_id if settings.eos_token_id is None else settings.eos_token_id
    assert end_of_text is not None
    while (opened := canvas.open(holes.positions)) and left != 0:
        positions = canvas.restraints.movable(canvas.tokens, opened)
        block = range(canvas.prompt, canvas.end)
        logits = (yield from view.forward(positions, block)).logits
        logits = allowed(holes, positions, logits, expand_id(spec, settings.expand_token_id), end_of_text)
        found = measure(logits, canvas, positions, settings.alg, DREAM)
        index = surest(found.confidence, 1, canvas.row, settings.alg_temp)[0]
        holes.put(positions[index], int(found.token[index]), logits[index])
        if settings.pad_eos_to_right:
            _pad(holes, positions, end_of_text, logits)
        _expand(holes, expand_id(spec, settings.expand_token_id))
        if settings.delete_eos_token:
            # Places of before the expansion, as in the reference.
            for position in reversed(positions):
                if canvas.tokens[position] == end_of_text:
                    holes.replace(position, 0)
        holes.release()
        left = None if left is None else left - 1


def allowed(holes: Holes, positions: list[int], logits: Tensor, expand: int, end_of_text: int) -> Tensor:
    """Logits [N, V] in which gaps that are full do not grow, and those of a fixed length do not end."""
    full = [index for index, position in enumerate(positions) if holes.full(position)]
    fixed = [index for index, position in enumerate(positions) if not holes.of(position).bounded]
    if not full and not fixed:
        return logits
    logits = logits.clone()
    logits[full, expand] -= _BLOCKED
    logits[fixed, end_of_text] -= _BLOCKED
    return logits


def _pad(holes: Holes, positions: list[int], end_of_text: int, logits: Tensor) -> None:
    """The first end of text of a gap, or without a template of the whole canvas, closes what was open behind it."""
    tokens, allows = holes.canvas.tokens, holes.canvas.restraints.allows
    for gap in holes.gaps:
        inside = gap.positions if holes.templated else range(len(tokens))
        first = next((position for position in inside if tokens[position] == end_of_text), len(tokens))
        for position, source in zip(positions, logits, strict=True):
            if position in gap.positions and position >= first and allows(tokens, position, end_of_text):
                holes.put(position, end_of_text, source)


def _expand(holes: Holes, token: int) -> None:
    for position in reversed(holes.positions):
        if holes.canvas.tokens[position] == token:
            holes.replace(position, 2)
            holes.budget -= 1
    for gap in holes.gaps if holes.budget <= 0 else ():
        # Under a constraint it may still have to, but no more than that, or it might go on for ever.
        gap.grows = False


def elastic(settings: DreamOnSettings, spec: ModelSpec) -> tuple[int, int]:
    """The ids that make an open position two, and that take one out.

    :raises OptionError: for settings under which a gap may be left incomplete.
    """
    wrong = {
        "steps": settings.steps,
        "expand_budget": settings.expand_budget,
        "delete_eos_token": None if settings.delete_eos_token else False,
    }
    for name, value in wrong.items():
        if value is not None:
            raise OptionError(
                message(
                    "{}={} may leave a gap incomplete, which is held to a {constraint}; leave one of the two out",
                    Option(name),
                    value,
                )
            )
    end_of_text = spec.eos_id if settings.eos_token_id is None else settings.eos_token_id
    assert end_of_text is not None, "that was looked at"
    return expand_id(spec, settings.expand_token_id), end_of_text


def fit(settings: DreamOnSettings, config: SamplingConfig, spec: ModelSpec) -> None:
    """Refuse ids the model does not have and a hole longer than its limit.

    :raises OptionError: naming the option.
    """
    shortest = settings.min_gen_len
    if shortest is not None and shortest > config.max_new_tokens:
        raise OptionError(
            message("min_gen_len={} is above {max_new_tokens}={}; make it smaller", shortest, config.max_new_tokens)
        )
    eos = spec.eos_id if settings.eos_token_id is None else settings.eos_token_id
    for name, token in (("expand_token_id", expand_id(spec, settings.expand_token_id)), ("eos_token_id", eos)):
        if token is None or token >= spec.vocabulary:
            raise OptionError(
                f"{name}={token!r} is no id of {spec.name}; give one below {spec.vocabulary} in preset_options"
            )


SAMPLER = Sampler(
    name="dreamon",
    summary="fills a hole of variable length: tokens that expand, ends of text that are deleted",
    source="DreamLM/DreamOn 8a0a549 eval/generator.py",
    settings=DreamOnSettings,
    start=start,
    unheld="its answers grow and shrink while they are written; it holds the gaps of a template, and its whole text",
    elastic=elastic,
    suffix=True,
    truncates_greedy=True,
    fit=fit,
)
