"""Mode `repair`: the answer is written from left to right, and tokens that both sides make doubtful are written anew.

Block after block: the model writes one autoregressively; then, a fixed number of rounds, every token of it is looked at
with itself left out and both sides in view (:mod:`dllm_plugins.modes.looking`). Tokens that are less probable so than a
threshold are reopened, all of them at once, the most doubtful first up to a share of the block, and written again from
left to right, each with what stands on both sides of it. A round after which the tokens of the block are not more
probable together, each with itself left out, is taken back, and is the last. Then the block is final. Its length does
not change: tokens that end texts, and a stop string, stay where they were written.

Revoking by what a token's absence makes of it is WINO's idea (arXiv 2507.18578, shadow masks), refining a finished text
in rounds ReMDM's (arXiv 2503.00307); to do so with an autoregressive answer is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.events import Repair
from dllm_plugins.events import Repairs
from dllm_plugins.events import TokenLogprob
from dllm_plugins.messages import message
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.modes.looking import BesideClean
from dllm_plugins.modes.looking import InBlock
from dllm_plugins.modes.looking import View
from dllm_plugins.prediction import predict
from dllm_plugins.prediction import without
from dllm_plugins.processes.base import NoiseProcess

NAME = "repair"
#: Tokens of a block and the probability that keeps one, where nobody says it.
BLOCK, THRESHOLD = 32, 0.05
#: Nothing counts as less probable than this.
FLOOR = 1e-6


class RepairSettings(Settings):
    """Options of repairing."""

    block_length: int | None = Field(None, description="tokens written before they are looked at")
    threshold: float | None = Field(None, description="a token less probable than this, both sides seen, is reopened")
    rounds: int = Field(1, ge=1, le=8, description="how often a block is looked at")
    share: float = Field(0.25, gt=0.0, le=1.0, description="most of a block that a round reopens")


@dataclass(frozen=True, slots=True)
class Written:
    """A block as it was written: its positions, those of them that stay, and whether the answer ends in it."""

    block: range
    fixed: frozenset[int]
    ends: bool


def _write(canvas: Canvas, view: View, begin: int, length: int) -> Dialogue[Written]:
    """A block from `begin` on, up to a token that ends texts or a stop string."""
    row, position = canvas.row, begin
    while position < min(begin + length, canvas.end):
        if canvas.tokens[position] == canvas.mask:
            answer = yield from view.write(position)
            canvas.put(position, answer)
        position += 1
        if canvas.tokens[position - 1] in row.stop_ids:
            return Written(range(begin, position), frozenset({position - 1}), ends=True)
        kept = row.stopped(canvas.tokens[canvas.prompt : position])
        if kept is not None:
            # The last token before a stop string may reach into it.
            return Written(range(begin, position), frozenset(range(canvas.prompt + kept - 1, position)), ends=True)
    return Written(range(begin, position), frozenset(), ends=position >= canvas.end)


def doubtful(probability: Tensor, threshold: float, share: float) -> list[int]:
    """Indices of the least probable below a threshold, at most a share of all and one at least; probability [N]."""
    most = max(int(len(probability) * share), 1)
    order = probability.argsort(stable=True).tolist()
    return sorted(index for index in order[:most] if float(probability[index]) < threshold)


def score(probability: Tensor) -> float:
    """How probable the tokens of a block are together, each with itself left out: the sum of logarithms, in nats.

    :param probability: [N], float64; what is nearly impossible counts alike.
    """
    return float(probability.clamp_min(FLOOR).log().sum())


def _looked(canvas: Canvas, view: View, written: Written, free: list[int]) -> Dialogue[Tensor]:
    """The probability of each free token of a block with itself left out, float64 [N]."""
    logits = yield from view.look(written.block, free, "doubt")
    _count(canvas, looked=len(free))
    tokens = torch.tensor([[canvas.tokens[position]] for position in free])
    return logits.double().softmax(-1).cpu().gather(1, tokens)[:, 0]


def _repaired(canvas: Canvas, view: View, written: Written, settings: RepairSettings) -> Dialogue[None]:
    """Write what is doubtful in a block anew, for as many rounds as there are or until one makes nothing better."""
    free = [position for position in written.block if position not in written.fixed]
    if not free:
        return
    probability = yield from _looked(canvas, view, written, free)
    for _ in range(settings.rounds):
        opened = doubtful(probability, settings.threshold or THRESHOLD, settings.share)
        if not opened:
            return
        _count(canvas, rounds=1, reopened=len(opened))
        before = Before.of(canvas)
        for index in opened:
            canvas.reopen(free[index])
        for index in opened:
            if canvas.tokens[free[index]] == canvas.mask:
                yield from _anew(canvas, view, written.block, free[index], before.tokens[free[index]])
        after = yield from _looked(canvas, view, written, free)
        if score(after) <= score(probability):
            before.restore(canvas)
            _count(canvas, undone=1)
            return
        probability = after


@dataclass(frozen=True, slots=True)
class Before:
    """What stood on a canvas, with what was said of it."""

    tokens: list[int]
    logits: dict[int, Tensor] | None
    said: dict[int, TokenLogprob] | None

    @classmethod
    def of(cls, canvas: Canvas) -> "Before":
        """A canvas as it stands."""
        row = canvas.row
        return cls(
            list(canvas.tokens),
            None if row.logits is None else dict(row.logits),
            None if row.said is None else dict(row.said),
        )

    def restore(self, canvas: Canvas) -> None:
        """The canvas is as it was."""
        canvas.tokens[:], canvas.row.logits, canvas.row.said = self.tokens, self.logits, self.said


def _anew(canvas: Canvas, view: View, block: range, place: int, old: int) -> Dialogue[None]:
    """Write a position again, with both sides in view; what ends a text is not written into its middle."""
    logits = canvas.held([place], (yield from view.look(block, [place], "repair")))
    logits = without(logits, [token for token in (*canvas.row.stop_ids, canvas.mask) if token < logits.shape[-1]])
    if bool((logits == -torch.inf).all()):
        # A ban, or the form of the answer, leaves nothing of what both sides allow.
        canvas.write(place, old)
        return
    drawn = predict(logits, [canvas.row.canvas_draw(place)])
    canvas.write(place, int(drawn.token[0]), logits[0])


def _count(canvas: Canvas, **more: int) -> None:
    found = canvas.row.repairs or Repairs()
    canvas.row.repairs = replace(found, **{name: getattr(found, name) + number for name, number in more.items()})


def start(
    of: Callable[[Canvas, NoiseProcess, ModelSpec], View],
    process: NoiseProcess,
    canvas: Canvas,
    settings: RepairSettings,
    spec: ModelSpec,
) -> Program:
    """Block after block: write, repair, hand out."""
    view, begin, ends = of(canvas, process, spec), canvas.prompt, False
    canvas.row.repairs = Repairs()
    while not ends:
        written = yield from _write(canvas, view, begin, settings.block_length or BLOCK)
        before = canvas.tokens[begin : written.block.stop]
        yield from _repaired(canvas, view, written, settings)
        changed = tuple(
            Repair(position - canvas.prompt, old, canvas.tokens[position])
            for position, old in zip(written.block, before, strict=True)
            if canvas.tokens[position] != old
        )
        canvas.row.repairs = replace(canvas.row.repairs, changed=(*canvas.row.repairs.changed, *changed))
        canvas.release(written.block.stop)
        begin, ends = written.block.stop, written.ends


def fit(_settings: RepairSettings, _config: object, spec: ModelSpec) -> None:
    """Refuse backends on which open rows see no clean ones behind them.

    :raises OptionError: naming one that can.
    """
    if not spec.mixes:
        raise OptionError(
            message(
                "mode {!r} of {} looks at tokens with both sides in view, and here clean and open rows take turns; "
                "load it with {backend}='kernels'",
                NAME,
                spec.name,
            )
        )


def samplers(process: NoiseProcess) -> tuple[Sampler, Sampler]:
    """It for models with a clean base, and for those that see a block both ways behind a causal prefix."""
    first = Sampler(
        name=NAME,
        summary="ar, then tokens that both sides make doubtful are written anew",
        source="revoking as WINO, arXiv 2507.18578, rounds as ReMDM, arXiv 2503.00307; of an ar answer it is ours",
        settings=RepairSettings,
        start=partial(start, BesideClean, process),
        unheld=None,
        keeps_prefix=True,
        fit=fit,
    )
    second = replace(first, name="nemotron_repair", start=partial(start, InBlock, process), keeps_prefix=False)
    return first, second
