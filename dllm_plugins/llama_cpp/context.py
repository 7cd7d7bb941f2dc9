"""Calls of the model: tokens in, rows of logits or of hidden states out."""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dllm_plugins.errors import GgufError
from dllm_plugins.llama_cpp.batch import Span
from dllm_plugins.llama_cpp.batch import check_span
from dllm_plugins.llama_cpp.batch import check_together
from dllm_plugins.llama_cpp.library import complaints
from dllm_plugins.llama_cpp.library import failed
from dllm_plugins.llama_cpp.streams import Streams
from dllm_plugins.messages import message

Outputs = NDArray[np.float32]
#: llama.h: no room, the input is not valid; anything else is a failure inside.
_REASONS = {1: "found no room for the tokens", -1: "refused the tokens", 2: "was interrupted"}


class Context(Streams):
    """Streams, and the calls that read and extend them. Not thread-safe."""

    _adapters: tuple[tuple[Any, float], ...] = ()

    def use(self, adapters: Sequence[tuple[Any, float]]) -> None:
        """Low-rank adapters and their scales for the calls from now on; none switches them off."""
        self._adapters = tuple(adapters)

    def _switch(self) -> None:
        """See to it that the context uses what it should: it may be a new one, or a call was broken off."""
        if self._now.adapters == self._adapters:
            return
        self._now.adapters = None
        lib, count = self._library, len(self._adapters)
        pointers = (lib.llama_adapter_lora_p_ctypes * count)(*[adapter for adapter, _ in self._adapters])
        scales = (ctypes.c_float * count)(*[scale for _, scale in self._adapters])
        if lib.llama_set_adapters_lora(self._context, pointers, count, scales):
            raise failed(f"llama.cpp does not take the adapters of {self.model.path}", "make them for this model")
        self._now.adapters = self._adapters

    def decode(self, spans: Sequence[Span], *, causal: bool, hidden: bool = False) -> list[Outputs]:
        """One call. Every span's tokens see what their stream holds, and one another: all, or those on the left.

        All spans have the same length: together they give bit for bit what each gives alone (of
        single tokens that is not promised). Their streams hold them afterwards.

        :param hidden: final hidden states [wanted, width] in place of logits.
        :returns: per span, float32 [wanted, vocabulary].
        :raises GgufError: before the call for what llama.cpp cannot do, after it if it fails; streams are
            then as before.
        """
        self._check_open()
        check_together(spans)
        for span in spans:
            check_span(span, self.model.vocabulary, self.model.width)
        if self._memory:
            self._check_places(spans)
        else:
            self._check_whole(spans, causal)
        self._reserve(1, max(span.begin + len(span) for span in spans), sum(len(span) for span in spans))
        ordered = sorted(spans, key=lambda span: span.stream)
        found = dict(zip((span.stream for span in ordered), self._call(ordered, causal, hidden), strict=True))
        return [found[span.stream] for span in spans]

    def _check_places(self, spans: Sequence[Span]) -> None:
        for span in spans:
            held = self.length(span.stream)
            if span.begin != held:
                raise GgufError(
                    f"stream {span.stream} holds {held} positions, so the next is {held}, not {span.begin}; "
                    f"cut it, or decode what is missing"
                )
            if held and self._library.llama_memory_seq_pos_min(self._memory, span.stream):
                raise GgufError(f"stream {span.stream} has lost its first positions; start the row again")

    def _check_whole(self, spans: Sequence[Span], causal: bool) -> None:
        """Without a memory llama.cpp forwards a whole canvas, which sees itself both ways."""
        problem = None
        if len(spans) > 1:
            problem = f"{len(spans)} canvases in one call"
        elif spans[0].begin:
            problem = f"tokens behind {spans[0].begin} cached ones"
        elif causal:
            problem = "causal attention"
        if problem:
            raise GgufError(
                f"{self.model.path} ({self.model.header.architecture}) keeps no keys and sees the whole canvas: "
                f"{problem} is not possible; load it with a memory for an approximate cache"
            )

    def _call(self, spans: Sequence[Span], causal: bool, hidden: bool) -> list[Outputs]:
        lib = self._library
        complaints()
        self._switch()
        lib.llama_set_causal_attn(self._context, causal)
        lib.llama_set_embeddings(self._context, hidden)
        try:
            code = lib.llama_decode(self._context, self._now.batch.fill(spans))
            if code:
                reason = _REASONS.get(code, f"failed with code {code}")
                raise failed(f"llama.cpp {reason} ({len(spans)} rows of {len(spans[0])})", "decode fewer rows together")
            return self._rows(spans, hidden)
        except BaseException:
            for span in spans if self._memory else ():
                self.cut(span.stream, span.begin)
            raise

    def _rows(self, spans: Sequence[Span], hidden: bool) -> list[Outputs]:
        """Copies of the rows: llama.cpp writes the next call's over them."""
        lib = self._library
        lib.llama_synchronize(self._context)
        # With hidden states asked for, and without a memory, every token has a row, wanted or not.
        everything = hidden or not self._memory
        counts = [len(span) if everything else len(span.wanted) for span in spans]
        width = self.model.width if hidden else self.model.vocabulary
        if not any(len(span.wanted) for span in spans):
            return [np.empty((0, width), np.float32) for _ in spans]
        pointer = lib.llama_get_embeddings(self._context) if hidden else lib.llama_get_logits(self._context)
        if not pointer:
            raise failed("llama.cpp has no rows of the last call", "start the row again")
        rows = np.ctypeslib.as_array(pointer, shape=(sum(counts), width))
        with np.errstate(invalid="ignore"):
            number = not np.isnan(rows.sum())
        if not number:
            raise GgufError(
                message(
                    "{} computes what is no number: its weights are damaged, or too large for 16 bits; use "
                    "{dtype}='float32', a file in another type, or convert it again",
                    self.model.path,
                )
            )
        found, begin = [], 0
        for span, count in zip(spans, counts, strict=True):
            own = rows[begin : begin + count]
            found.append(own[list(span.wanted)] if everything else own.copy())
            begin += count
        return found
