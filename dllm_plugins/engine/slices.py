"""Long prompts in slices, so that rows in company wait for no more than one of them at a time."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import Program
from dllm_plugins.decoding.row import Row
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.modes.base import Sampler

#: Of a pass over a slice. It is none of the sampler's, whose random numbers depend on how many it has made.
KIND = "slice"


def sliced(canvas: Canvas, spec: ModelSpec, sampler: Sampler, most: int) -> Program:
    """The sampler's program, which finds all but the last slice of its prompt in the prefix.

    :param most: tokens of a slice; blocks that are longer stay whole.
    """
    own = _causal if sampler.keeps_prefix else _by_blocks
    return own(canvas, spec, sampler, most)


def _causal(canvas: Canvas, spec: ModelSpec, sampler: Sampler, most: int) -> Program:
    """As with prefixes that outlive their row: clean tokens see nothing to their right, so any first part is one."""
    row = canvas.row
    # There is nothing to be seen before the prompt has been read.
    canvas.shown = row.prompt
    yield from read(row, row.prompt, most, left=most)
    canvas.shown = None
    yield from sampler.program(canvas, spec)


def _by_blocks(canvas: Canvas, spec: ModelSpec, sampler: Sampler, most: int) -> Program:
    """What the first pass of any program freezes is read before it, as far as it sees nothing behind itself."""
    program = sampler.program(canvas, spec)
    wanted = next(program)
    assert isinstance(wanted, Pass), "a program begins with a pass"
    shown, canvas.shown = canvas.shown, canvas.prompt
    while count := _first_slice(wanted, most):
        part = _part(wanted.segments[0], 0, count)
        yield replace(wanted, segments=(part,), kind=KIND, freeze=count, hold=None, asks=())
        wanted = _behind(wanted, count)
    answers = yield wanted
    canvas.shown = shown
    while True:
        try:
            wanted = program.send(answers)
        except StopIteration:
            return
        answers = yield wanted


def _first_slice(made: Pass, most: int) -> int:
    """How many tokens can be frozen before a pass; 0 if it freezes no more than a slice, or all of that hangs together.

    Nothing is asked about them, and whatever else is in the pass sees them all.
    """
    first, *others = made.segments
    if made.freeze <= most:
        return 0
    seen = [dict(segment.behind).get(0, 0) for segment in others]
    borders = _borders(first, min([made.freeze - 1, *first.wanted, *(made.hold or ()), *seen]))
    fitting = [border for border in borders if border <= most]
    return fitting[-1] if fitting else borders[0] if borders else 0


def _borders(segment: Segment, last: int) -> Sequence[int]:
    """Places up to `last`, none of whose tokens before them sees one behind; ascending."""
    if segment.groups is None:
        return range(1, last + 1) if segment.causal else ()
    before = list(accumulate(segment.groups, max))
    behind = list(accumulate(reversed(segment.groups), min))[::-1]
    return [place for place in range(1, last + 1) if before[place - 1] < behind[place]]


def _part(segment: Segment, begin: int, end: int) -> Segment:
    """Some of a segment's tokens; what is wanted of them counts from their first one."""
    groups, conditioning = segment.groups, segment.conditioning
    return replace(
        segment,
        tokens=segment.tokens[begin:end],
        positions=segment.positions[begin:end],
        wanted=[index - begin for index in segment.wanted if begin <= index < end],
        groups=None if groups is None else groups[begin:end],
        conditioning=None if conditioning is None else conditioning[begin:end],
    )


def _behind(made: Pass, count: int) -> Pass:
    """A pass whose first tokens are in the prefix by now."""
    first, *others = made.segments
    seen = [
        replace(segment, behind=tuple((index, size - count * (index == 0)) for index, size in segment.behind))
        for segment in others
    ]
    hold = None if made.hold is None else [index - count for index in made.hold]
    segments = (_part(first, count, len(first.tokens)), *seen)
    return replace(made, segments=segments, freeze=made.freeze - count, hold=hold, keep=0)


def read(row: Row, end: int, most: int, left: int = 0) -> Dialogue[None]:
    """The prompt joins the prefix up to `end`, `most` tokens a pass, until so many are left, or fewer."""
    while end - row.frozen > left:
        count = min(most, end - row.frozen)
        places = range(row.frozen, row.frozen + count)
        part = Segment(row.handle, row.tokens[places.start : places.stop], places)
        yield Pass((part,), KIND, freeze=count, asks=())
