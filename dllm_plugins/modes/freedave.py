"""Lossless self-verification: FreeDave (arXiv 2510.00294) and SSD (arXiv 2510.04147).

Source: cychomatica/FreeDave 8b48121 `generation/core.py`. What a model says of one state
of the canvas is taken as a guess of what it will say of the next few; the states that slow
decoding would then reach are forwarded in one pass, each a sequence of its own. The model's
word on each verified state gives the next one for certain. If that was forwarded too,
its word is there already, and a pass is saved; if not, the rest is dropped.

So the text equals that of slow static decoding (modes/static.py) token for token: every
state is forwarded in a call of the very shape that slow decoding would make, so not even
the last bits differ; and since noise is keyed on slow decoding's own pass numbers, at any temperature
with the same seed. A pass over many states counts as one pass with the rows of all of them.

FreeDave forwards a chain. SSD forwards a tree: beside each state of the chain also those in which
the next-ranked positions came first. Two orders that meet in one state are one branch. The
paper's code is not public and the shape of the tree is ours; no shape can change the text.

A chain reaches to the first state of the next block and no further, for nothing was said of that
block. With cached blocks that state is forwarded together with the block that it completes;
verified, its keys join the prefix.
"""

from collections.abc import Hashable
from collections.abc import Mapping
from functools import partial

from pydantic import Field

from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.modes.forwarding import Forwarding
from dllm_plugins.modes.slow_text import slow_text
from dllm_plugins.modes.static import CanvasState
from dllm_plugins.modes.static import LogitsAt
from dllm_plugins.modes.static import StaticDecoding
from dllm_plugins.modes.steps import Counts


class FreeDaveSettings(Settings):
    """Options of FreeDave."""

    block_length: int | None = Field(None, description="positions denoised together")
    steps: int | None = Field(None, description="slow passes a block is spread over; its length if not given")
    draft_steps: int = Field(4, ge=1, le=64, description="states of the chain forwarded in one pass; 1 is slow")


class SsdSettings(FreeDaveSettings):
    """Options of SSD."""

    draft_steps: int = Field(4, ge=2, le=64, description="depth of the tree, its certain root included")
    width: int = Field(2, ge=2, le=16, description="branches at each state of the chain, itself among them")


def drafts(
    slow: StaticDecoding, certain: CanvasState, logits_at: LogitsAt, count: int, width: int
) -> list[CanvasState]:
    """The certain state, and those that would follow if the model went on saying the same."""
    found, tip = [certain], certain
    for _ in range(count - 1):
        if slow.done(tip):
            break
        branches = [made[0] for skip in range(width) if (made := slow.step(tip, logits_at, skip)) is not None]
        if not branches:
            break
        found += [state for state in branches if not slow.done(state) and state not in found]
        tip = branches[0]
    return found


def start(canvas: Canvas, settings: FreeDaveSettings, spec: ModelSpec) -> Program:
    """Each pass verifies what the one before it let expect."""
    slow = StaticDecoding(canvas, spec, settings.block_length, settings.steps)
    forwarding = Forwarding(canvas, spec, slow)
    width = settings.width if isinstance(settings, SsdSettings) else 1
    state = slow.first()
    known = yield from forwarding.forward([state])
    while True:
        last, state = follow(slow, state, known)
        canvas.release_committed()
        if slow.done(state):
            return
        forwarding.commit(last)
        known = yield from forwarding.forward(drafts(slow, state, known[last], settings.draft_steps, width))


def follow(
    slow: StaticDecoding, state: CanvasState, known: Mapping[CanvasState, LogitsAt]
) -> tuple[CanvasState, CanvasState]:
    """Go on from a certain state as far as the model's word is known.

    :returns: the last state of which it is known, and the next one, which is certain.
    """
    while True:
        made = slow.step(state, known[state])
        assert made is not None, "a state's own positions were asked for"
        last, (state, writes) = state, made
        for write in writes:
            slow.canvas.write(write.position, write.token, write.source)
        if state not in known:
            return last, state


def fit(name: str, _settings: FreeDaveSettings, _config: SamplingConfig, spec: ModelSpec) -> None:
    """Refuse cached blocks whose first position is predicted by the block before.

    :raises OptionError: for a shifted model with an exact cache.
    """
    if spec.shifted and spec.cache == "exact":
        raise OptionError(
            f"mode {name!r} does not fit {spec.name}, where the block before predicts a block's first position; "
            f"choose another mode"
        )


def same_text(settings: FreeDaveSettings, config: SamplingConfig, spec: ModelSpec) -> Hashable:
    """That of slow static decoding, whatever is drafted."""
    return slow_text(config, spec, settings.block_length, settings.steps)


def _sampler(name: str, summary: str, source: str, settings: type[FreeDaveSettings]) -> Sampler:
    return Sampler(
        name=name,
        summary=summary,
        source=source,
        settings=settings,
        start=start,
        unheld="it forwards canvases that it may give up",
        suffix=True,
        counts=Counts.BLOCK,
        attention=frozenset({"bidirectional", "block-causal"}),
        shifted=frozenset({"bidirectional"}),
        same_text=same_text,
        fit=partial(fit, name),
    )


SAMPLERS = (
    _sampler(
        "freedave",
        "lossless: verifies a chain of drafted states a pass; the text of one position, or a quota, a pass",
        "cychomatica/FreeDave 8b48121 generation/core.py (arXiv 2510.00294)",
        FreeDaveSettings,
    ),
    _sampler(
        "ssd",
        "lossless: verifies a tree of drafted states a pass",
        "arXiv 2510.04147; the shape of the tree is ours",
        SsdSettings,
    ),
)
