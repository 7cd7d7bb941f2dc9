"""Rows and passes of either llama.cpp denoiser: planned, run in rounds, handed out by segment."""

from collections import Counter
from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import cached_property
from typing import cast

import numpy as np
import torch
from torch import Tensor

from dllm_plugins.denoisers.base import PrefixState
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.rows import Handles
from dllm_plugins.denoisers.visibility import linked
from dllm_plugins.llama_cpp.batch import Span
from dllm_plugins.llama_cpp.calls import Chunk
from dllm_plugins.llama_cpp.calls import Planning
from dllm_plugins.llama_cpp.calls import lane_of
from dllm_plugins.llama_cpp.context import Context
from dllm_plugins.llama_cpp.context import Outputs
from dllm_plugins.llama_cpp.model import GgufModel
from dllm_plugins.llama_cpp.prefix import Shelf
from dllm_plugins.llama_cpp.prefix import StreamPrefix
from dllm_plugins.llama_cpp.rows import LlamaRow
from dllm_plugins.llama_cpp.running import Rounds
from dllm_plugins.llama_cpp.running import RunningLane
from dllm_plugins.llama_cpp.sharing import company_changes_nothing
from dllm_plugins.llama_cpp.size import Size


class Passes(Handles[LlamaRow]):
    """Part of both llama.cpp denoisers: rows with a stream of one context each, passes, and the calls they took.

    :param model: closed together with this.
    """

    planning = Planning()
    #: By row and :meth:`counted`: how many calls the last pass had.
    _counts: Counter[tuple[int, bool]]

    def __init__(self, model: GgufModel, context: Context) -> None:
        super().__init__()
        self.model = model
        self.context = context
        self._shelf = Shelf(context)

    def close(self) -> None:
        """Give all of llama.cpp's memory back; nothing can be decoded any more."""
        self.model.close()

    def keys_bytes(self, rows: Sequence[int]) -> int:
        """See :class:`~dllm_plugins.denoisers.base.FullDenoiser`: all streams are as long as the longest."""
        if not rows or not self.model.has_memory:
            return 0
        return Size.holding(len(rows), max(rows)).cells * self.context.position_bytes

    def open_row(self, prefix: PrefixState | None = None, length: int = 0) -> int:
        """A handle with an empty prefix, or with a copy of the first `length` positions of a kept one."""
        row = LlamaRow()
        if self.model.has_memory and prefix is None:
            self._shelf.stream(row)
        elif self.model.has_memory:
            self._shelf.take(cast(StreamPrefix, prefix), length, row)
            row.frozen = length
        return self._open(row)

    def close_row(self, row: int) -> StreamPrefix:
        """End the row and hand out its prefix; dropping that gives the memory back."""
        ended = self._rows.pop(row)
        if ended.stream is None or self.context.closed:
            return StreamPrefix(0)
        return self._shelf.keep(ended, ended.frozen)

    def forward(self, segments: Sequence[Segment]) -> list[Tensor]:
        """One pass; see :meth:`~dllm_plugins.denoisers.base.Denoiser.forward`. Float32 [len(wanted), width].

        :raises GgufError: for segments that llama.cpp cannot compute.
        """
        rounds, number, last = Rounds(self._shelf, self._call, self.key, lambda: self.shares), 0, None
        self._counts = Counter()
        for call in linked(segments):
            handle = call[0].row
            row = self._rows[handle]
            lane = lane_of(list(enumerate(call, number)), row.length, self.planning)
            number += len(call)
            if handle == last:
                rounds.wait(handle, lane, row.stream)
                continue
            last = handle
            row.begin(len(call[0].tokens))
            if row.stream is not None:
                self.context.cut(row.stream, row.base)
            rounds.start(handle, lane, row.stream)
        return self._handed_out(segments, rounds.run())

    def key(self, chunk: Chunk) -> Hashable:
        """Chunks for which this is equal may share a call."""
        return chunk.causal, len(chunk.tokens)

    @cached_property
    def shares(self) -> bool:
        """Whether rows may share calls; measured when they first could."""
        return company_changes_nothing(self.context, self._shelf)

    def _call(self, part: Sequence[tuple[RunningLane, Chunk]]) -> list[Outputs]:
        self._counts.update({(running.row, self.counted(chunk)) for running, chunk in part})
        streams = [running.stream or 0 for running, _ in part]
        found = self.decode([(stream, chunk) for stream, (_, chunk) in zip(streams, part, strict=True)])
        for stream, (_, chunk) in zip(streams, part, strict=True):
            if chunk.company:
                self.context.cut(stream, chunk.end)
        return found

    def counted(self, chunk: Chunk) -> bool:
        """Which of the two kinds of calls of a pass a chunk is; see :meth:`rounds`."""
        return chunk.context

    def decode(self, part: Sequence[tuple[int, Chunk]]) -> list[Outputs]:
        """Rows [len(wanted), V] of chunks that share a call; each with its stream."""
        spans = [Span(stream, chunk.begin, chunk.tokens, wanted=chunk.wanted) for stream, chunk in part]
        return self.context.decode(spans, causal=part[0][1].causal)

    def _handed_out(self, segments: Sequence[Segment], found: Sequence[tuple[Chunk, Outputs]]) -> list[Tensor]:
        """By segment, the rows that it wanted, in its order."""
        where: dict[tuple[int, int] | None, tuple[int, int]] = {
            source: (call, row) for call, (chunk, _) in enumerate(found) for row, source in enumerate(chunk.sources)
        }
        handed = []
        for number, segment in enumerate(segments):
            spots = [where[number, index] for index in segment.wanted]
            calls = {call for call, _ in spots}
            if len(calls) == 1:
                rows, order = found[calls.pop()][1], [row for _, row in spots]
                rows = rows if order == list(range(len(rows))) else rows[order]
            elif calls:
                rows = np.stack([found[call][1][row] for call, row in spots])
            else:
                rows = np.empty((0, self.width(segment)), np.float32)
            handed.append(torch.from_numpy(rows[:, : self.width(segment)]))
        return handed

    def width(self, segment: Segment) -> int:
        """How many numbers a row of the segment has."""
        return self.model.vocabulary

    def _rounds(self, row: int, kinds: Mapping[bool, str]) -> Mapping[str, int]:
        """How many calls the row took part in in the last pass, by kind; `kinds` are those of :meth:`counted`."""
        found: Counter[str] = Counter()
        for which, kind in kinds.items():
            found[kind] += self._counts[row, which]
        return {kind: count for kind, count in found.items() if count}
