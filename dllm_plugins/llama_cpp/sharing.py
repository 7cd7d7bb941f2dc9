"""What changes a row's bits on this machine: the company of other rows, the number of its tokens in a call.

Wherever it was tried (x86, all types of weights we write), neither does from two tokens of a row on. A
single one is rounded differently where weights are floats, not at every position. But
processors have products of their own, so it is measured, with the very file, once something depends on it.
"""

from collections.abc import Sequence

import numpy as np

from dllm_plugins.llama_cpp.batch import Span
from dllm_plugins.llama_cpp.context import Context
from dllm_plugins.llama_cpp.context import Outputs
from dllm_plugins.llama_cpp.prefix import Scratch
from dllm_plugins.llama_cpp.prefix import Shelf

#: Tokens of each row: products over pairs of rows are taken for even totals only.
_LENGTHS = (3, 8)
#: Calls of one text: fewest tokens, and how many each has.
_CUTS = {1: (1, 2, 3, 7), 2: (2, 3, 8)}
#: Products with these are sums of floats, in an order that a single row may have for itself.
_FLOATS = {"F32", "F16", "BF16", "F64"}

#: Modes that promise another one's text, which rests on bits that do not depend on a call's length.
LOSSLESS = {
    "nemotron_speculative": "it promises the text of nemotron_ar, but llama.cpp on this machine rounds a token "
    "differently in other company; take mode 'nemotron_ar' or 'nemotron'",
}


def company_changes_nothing(context: Context, shelf: Shelf) -> bool:
    """Decode blocks of two rows together and apart, and compare the bits."""
    holders = [Scratch() for _ in range(2)]
    try:
        streams = [shelf.stream(holder) for holder in holders]
        for length in _LENGTHS:
            spans = [Span(stream, 0, _tokens(context, stream, length), wanted=range(length)) for stream in streams]
            together = context.decode(spans, causal=False)
            for span, rows in zip(spans, together, strict=True):
                context.cut(span.stream, 0)
                if not np.array_equal(context.decode([span], causal=False)[0], rows):
                    return False
                context.cut(span.stream, 0)
        return True
    finally:
        for holder in holders:
            shelf.give_back(holder)


def _tokens(context: Context, stream: int, length: int) -> list[int]:
    """Any ids, other ones for each stream."""
    return [(7919 * (stream + 1) * (index + 1)) % context.model.vocabulary for index in range(length)]


def fewest_of_equal_bits(context: Context, shelf: Shelf) -> int | None:
    """From how many tokens a call on, 1 or 2, a causal text has the same rows however it is cut; None if it never has.

    Rows stand for keys, too: those of later calls are computed from keys of earlier ones.
    """
    holder, length = Scratch(), sum(_CUTS[2])
    try:
        stream = shelf.stream(holder)
        whole = _cut(context, stream, (length,))
        for fewest, sizes in _CUTS.items():
            if fewest == 1 and _has_float_matrices(context):
                continue
            if all(np.array_equal(_cut(context, stream, order), whole) for order in (sizes, sizes[::-1])):
                return fewest
        return None
    finally:
        shelf.give_back(holder)


def _has_float_matrices(context: Context) -> bool:
    tensors = context.model.header.tensors.values()
    return any(len(tensor.shape) > 1 and tensor.type.name in _FLOATS for tensor in tensors)


def _cut(context: Context, stream: int, sizes: Sequence[int]) -> Outputs:
    """The rows of a text that is decoded in calls of these lengths."""
    tokens, begin, found = _tokens(context, stream, sum(sizes)), 0, []
    context.cut(stream, 0)
    for size in sizes:
        span = Span(stream, begin, tokens[begin : begin + size], wanted=range(size))
        found += context.decode([span], causal=True)
        begin += size
    return np.concatenate(found)
