"""Whether rows may share a call on this machine: whether each then gets the bits it gets alone.

It holds for two or more tokens of each row wherever it was tried (x86, all types of weights
we write), but processors have products of their own, so it is measured with the very file
when rows could share a call for the first time.
"""

import numpy as np

from dllm_plugins.gguf.batch import Run
from dllm_plugins.gguf.context import Context
from dllm_plugins.gguf.prefix import Shelf

#: Tokens of each row: products over pairs of rows are taken for even totals only.
_LENGTHS = (3, 8)


def company_changes_nothing(context: Context, shelf: Shelf) -> bool:
    """Decode blocks of two rows together and apart, and compare the bits."""
    streams = [shelf.stream() for _ in range(2)]
    try:
        for length in _LENGTHS:
            runs = [Run(stream, 0, _tokens(context, stream, length), wanted=range(length)) for stream in streams]
            together = context.decode(runs, causal=False)
            for run, rows in zip(runs, together, strict=True):
                context.cut(run.stream, 0)
                if not np.array_equal(context.decode([run], causal=False)[0], rows):
                    return False
                context.cut(run.stream, 0)
        return True
    finally:
        for stream in streams:
            shelf.give_back(stream)


def _tokens(context: Context, stream: int, length: int) -> list[int]:
    """Any ids, other ones for each stream."""
    return [(7919 * (stream + 1) * (index + 1)) % context.model.vocabulary for index in range(length)]
