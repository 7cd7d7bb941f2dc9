"""Fast-dLLM v2's hierarchical block sampling (arXiv 2509.26328).

Source: the checkpoints' modelling file (copy in Satgoy152/DualDiffusion 189fa7a,
`generate`) and shuyingte/DCD ea6a4b7 `v2/generation_functions.py` (`batch_sample`).
Blocks are aligned to position 0 and cached exactly; inside a block one sub-block after
another is filled, each from whole-block passes shifted by one. The first token of every
block behind the prompt's is the likeliest next token of the pass that commits the block
before, at any temperature. The reference loses a prompt of exactly one block; here it is
committed like any other.
"""

from dataclasses import replace

from pydantic import Field
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.modes.drawing import draw_tokens
from dllm_plugins.modes.drawing import extend
from dllm_plugins.modes.drawing import release
from dllm_plugins.modes.ids import TokenIds
from dllm_plugins.prediction import GREEDY
from dllm_plugins.prediction import distribution

#: What the reference keeps of a distribution it samples from.
TOP_P = 0.95
#: Positions filled together, unless a block is shorter.
SUB_BLOCK = 8


class FastDllmV2Settings(Settings):
    """Options of Fast-dLLM v2's sampler."""

    block_length: int | None = Field(None, description="positions committed together (`block_size`)")
    small_block_size: int | None = Field(
        None, ge=1, description=f"positions of a block that are filled before the next ones (at most {SUB_BLOCK})"
    )
    threshold: float = Field(1.0, description="commit all that are more probable; the best one always")
    use_block_cache: bool = Field(
        default=False, description="approximate: forward the sub-block alone against stale keys of the block"
    )
    batch_stop_ids: TokenIds = Field(
        (), description="`batch_sample`'s rule: ids that end the answer once their block is full; commits do not look"
    )


class _Forwarding:
    """Passes over one canvas: commits, whole blocks, and sub-blocks against held keys."""

    def __init__(self, canvas: Canvas, length: int, *, holds: bool) -> None:
        self.canvas = canvas
        self.length = length
        self.holds = holds
        self.frozen = 0
        self.kind = "prefill"
        self.held = False

    def commit(self, end: int) -> Dialogue[Tensor]:
        """Logits [V] of the token at `end`; everything before it is cached afterwards."""
        positions = range(self.frozen, end)
        segment = self.canvas.part(positions, [end - 1], groups=[position // self.length for position in positions])
        kind = "commit" if self.frozen else "prefill"
        self.frozen, self.kind, self.held = end, "predict", False
        return (yield Pass((segment,), kind, release=True, freeze=len(positions)))[0].logits[0]

    def block(self, block: range, part: range, wanted: list[int]) -> Dialogue[Tensor]:
        """Logits [len(wanted), V] at rows of `part` of a block; what stands before the block is cached by the way."""
        if self.held and self.canvas.tokens[part.start] != self.canvas.mask:
            return (yield Pass((self.canvas.part(part, wanted),)))[0].logits
        positions = range(self.frozen, block.stop)
        segment = self.canvas.part(positions, wanted, groups=[position // self.length for position in positions])
        before, kind, self.kind = block.start - self.frozen, self.kind, "predict"
        hold = [index for index, position in enumerate(positions) if position in block and position not in part]
        self.frozen, self.held = block.start, self.holds
        return (yield Pass((segment,), kind, release=True, freeze=before, hold=hold if self.holds else None))[0].logits


def _commit(canvas: Canvas, positions: list[int], logits: Tensor, threshold: float) -> None:
    """Write all that are more probable than `threshold`, or the best one; logits [N, V]."""
    draws, config = canvas.row.canvas_draws(positions), canvas.row.config
    if config.temperature:
        draws = [replace(draw, top_p=config.top_p or TOP_P) for draw in draws]
    tokens = draw_tokens(canvas, logits, draws)
    sure = distribution(logits, draws).gather(1, tokens[:, None])[:, 0]
    committed = sure > threshold
    committed[sure.argmax()] = True
    for index in committed.nonzero()[:, 0].tolist():
        canvas.write(positions[index], int(tokens[index]), logits[index])


def _fill(canvas: Canvas, block: range, settings: FastDllmV2Settings, forwarding: _Forwarding) -> Dialogue[bool]:
    """Passes until the block is full or the text ends; whether it does."""
    size, opened = settings.small_block_size or min(SUB_BLOCK, len(block)), canvas.open(block)
    for begin in range(block.start, block.stop, size):
        part = range(begin, min(begin + size, block.stop))
        while positions := canvas.open(part):
            logits = yield from forwarding.block(block, part, [position - 1 for position in positions])
            _commit(canvas, positions, logits, settings.threshold)
            if not settings.batch_stop_ids and release(canvas, next(iter(canvas.open(block)), block.stop)):
                return True
    stops = [position for position in opened if canvas.tokens[position] in settings.batch_stop_ids]
    if stops:
        del canvas.tokens[stops[0] + 1 :]
    return release(canvas, len(canvas.tokens)) or bool(stops)


def start(canvas: Canvas, settings: FastDllmV2Settings, spec: ModelSpec) -> Program:
    """Block after block, each begun by the commit of the one before."""
    length = settings.block_length or spec.block_length
    forwarding = _Forwarding(canvas, length, holds=settings.use_block_cache)
    begin = canvas.prompt // length * length
    del canvas.tokens[canvas.prompt :]
    while begin < canvas.end:
        if len(canvas.tokens) == begin:
            logits = yield from forwarding.commit(begin)
            extend(canvas, begin + 1)
            canvas.write(begin, int(draw_tokens(canvas, logits[None], [GREEDY])[0]), logits)
            if release(canvas, begin + 1):
                return
        extend(canvas, begin + length)
        if (yield from _fill(canvas, range(begin, begin + length), settings, forwarding)):
            return
        begin += length


def fit(settings: FastDllmV2Settings, _config: SamplingConfig, spec: ModelSpec) -> None:
    """Refuse sub-blocks that are longer than a block, and held keys of a block where only a prefix can be held.

    :raises OptionError: naming the option.
    """
    if settings.use_block_cache and spec.holds_prefix_only:
        raise OptionError(
            f"use_block_cache=True does not fit {spec.name}, which cannot keep keys behind those it computes anew; "
            f"leave it out"
        )
    length, size = settings.block_length or spec.block_length, settings.small_block_size
    if size is not None and size > length:
        raise OptionError(f"small_block_size={size} does not fit block_length={length}; make it {length} or less")


SAMPLER = Sampler(
    name="fast_dllm_v2",
    summary="blocks of sub-blocks, shifted by one, each begun autoregressively",
    source="Fast_dLLM_v2 modeling.py generate; shuyingte/DCD ea6a4b7 v2 batch_sample (arXiv 2509.26328)",
    settings=FastDllmV2Settings,
    start=start,
    unheld=None,
    fit=fit,
)
