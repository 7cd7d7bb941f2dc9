"""Long prompts in slices, so that rows in company wait for no more than one of them at a time."""

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.modes.base import Sampler

#: Of a pass over a slice. It is none of the sampler's, whose random numbers depend on how many it has made.
KIND = "slice"


def sliced(canvas: Canvas, spec: ModelSpec, sampler: Sampler, most: int) -> Program:
    """The sampler's program, which finds all but the last slice of its prompt in the prefix.

    As with prefixes that outlive their row: clean tokens see nothing to their right, so any first part is a prefix.

    :param most: tokens of a slice.
    """
    row = canvas.row
    # There is nothing to be seen before the prompt has been read.
    canvas.shown = row.prompt
    while row.prompt - row.frozen > most:
        places = range(row.frozen, row.frozen + most)
        part = Segment(row.handle, row.tokens[places.start : places.stop], places)
        yield Pass((part,), KIND, freeze=most, asks=())
    canvas.shown = None
    yield from sampler.program(canvas, spec)
