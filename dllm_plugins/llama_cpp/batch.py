"""What goes into one llama_decode: checked here, because llama.cpp aborts the process or computes something else.

Both were met at llama.cpp 0c1e57098: more tokens than a micro-batch, or more streams than tokens,
abort; streams of unequal lengths are cut into pieces that do not see one another, and it reports success.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dllm_plugins.errors import GgufError


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive positions of one stream.

    :param begin: the first position; what the stream already holds ends right before it.
    :param tokens: ids, one a position.
    :param embeddings: float32 [positions, width], in place of `tokens`.
    :param wanted: ascending indices of the positions whose rows come back.
    """

    stream: int
    begin: int
    tokens: Sequence[int] = ()
    embeddings: "NDArray[np.float32] | None" = None
    wanted: Sequence[int] = ()

    def __len__(self) -> int:
        """How many positions."""
        return len(self.tokens) if self.embeddings is None else len(self.embeddings)


def check_span(span: Span, vocabulary: int, width: int) -> None:
    """Refuse what llama.cpp would refuse, misread or abort at.

    :raises GgufError: naming the value.
    """
    if span.embeddings is None:
        bad = [token for token in span.tokens if not 0 <= token < vocabulary]
        if bad:
            raise GgufError(f"token id {bad[0]} is outside 0 to {vocabulary - 1}; check the tokenizer and the mask id")
    else:
        shape, dtype = span.embeddings.shape, span.embeddings.dtype
        if span.tokens or len(shape) != 2 or shape[1] != width or dtype != np.float32:
            raise GgufError(
                f"embeddings of shape {shape} and type {dtype} beside {len(span.tokens)} tokens do not do; "
                f"give float32 [positions, {width}] and no tokens"
            )
    if not len(span):
        raise GgufError(f"stream {span.stream} gets no token; leave it out")
    wanted = list(span.wanted)
    if wanted != sorted(set(wanted)) or (wanted and not 0 <= wanted[0] <= wanted[-1] < len(span)):
        raise GgufError(f"wanted rows {wanted} of {len(span)} positions do not do; give ascending indices")


def check_together(spans: Sequence[Span]) -> None:
    """Refuse spans that cannot share one call.

    :raises GgufError: naming what differs.
    """
    if not spans:
        raise GgufError("a call without tokens has no result; leave it out")
    streams = [span.stream for span in spans]
    if len(set(streams)) != len(streams):
        raise GgufError(f"streams {streams} name one twice; make two calls")
    lengths = [len(span) for span in spans]
    if len(set(lengths)) > 1:
        raise GgufError(
            f"spans of {lengths} positions cannot share a call: llama.cpp would cut the longer ones into pieces that "
            f"do not see one another; make one call for each length"
        )
    if len({span.embeddings is None for span in spans}) > 1:
        raise GgufError("tokens and embeddings cannot share a call; make two")


class LlamaBatch:
    """Room for a call's tokens, in memory of our own."""

    def __init__(self, library: Any, capacity: int, width: int) -> None:
        self.capacity = capacity
        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._counts = np.ones(capacity, np.int32)
        self._streams = np.zeros(capacity, np.int32)
        self._outputs = np.zeros(capacity, np.int8)
        self._places = self._streams.ctypes.data + self._streams.itemsize * np.arange(capacity, dtype=np.uintp)
        self._embeddings = np.zeros((0, width), np.float32)
        self._struct = library.llama_batch()
        self._token_pointer = self._pointer("token", self._tokens)
        self._struct.pos = self._pointer("pos", self._positions)
        self._struct.n_seq_id = self._pointer("n_seq_id", self._counts)
        self._struct.seq_id = self._pointer("seq_id", self._places)
        self._struct.logits = self._pointer("logits", self._outputs)

    def _pointer(self, name: str, data: "NDArray[Any]") -> Any:
        kinds = {field[0]: field[1] for field in self._struct._fields_}
        return ctypes.cast(data.ctypes.data, kinds[name])

    def fill(self, spans: Sequence[Span]) -> Any:
        """The struct for these spans, in this order; valid until the next call."""
        begin, embedded = 0, spans[0].embeddings is not None
        for span in spans:
            end = begin + len(span)
            if not embedded:
                self._tokens[begin:end] = span.tokens
            self._positions[begin:end] = np.arange(span.begin, span.begin + len(span))
            self._streams[begin:end] = span.stream
            self._outputs[begin:end] = 0
            self._outputs[[begin + index for index in span.wanted]] = 1
            begin = end
        if embedded:
            rows = [span.embeddings for span in spans if span.embeddings is not None]
            self._embeddings = np.ascontiguousarray(np.concatenate(rows))
        self._struct.n_tokens = begin
        self._struct.token = None if embedded else self._token_pointer
        self._struct.embd = self._pointer("embd", self._embeddings) if embedded else None
        return self._struct
