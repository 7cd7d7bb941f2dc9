"""The calls of a pass of the tri-mode default: clean rows first, then open ones on top of their keys."""

from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from itertools import count
from typing import Any
from typing import TypeVar
from typing import cast

import numpy as np
from numpy.typing import NDArray

from dllm_plugins.denoisers.base import Segment
from dllm_plugins.gguf.tensors import read_rows
from dllm_plugins.llama_cpp.batch import Run
from dllm_plugins.llama_cpp.placed import PlacedContext
from dllm_plugins.llama_cpp.placed import PlacedRun
from dllm_plugins.llama_cpp.prefix import Holder
from dllm_plugins.llama_cpp.prefix import Scratch
from dllm_plugins.llama_cpp.prefix import Shelf
from dllm_plugins.llama_cpp.tri_parts import CHUNK
from dllm_plugins.llama_cpp.tri_parts import Part
from dllm_plugins.llama_cpp.tri_parts import Piece

_Item = TypeVar("_Item")
#: An open segment under way: the row's part, the segment and its number, who has the stream, what it stands on.
_Opened = tuple[Part, int, Segment, Holder, int]


class Calls:
    """Runs passes; rows share a call where they have equally many tokens for it.

    :param adapter: llama.cpp's, for open rows.
    :param mask: float32 [width], what an open row holds; its id is the vocabulary's size.
    """

    def __init__(self, context: PlacedContext, shelf: Shelf, adapter: Any, mask: "NDArray[np.float32]") -> None:
        self._context = context
        self._shelf = shelf
        self._adapter = adapter
        self._mask = mask
        self._header = context.model.header

    def run(self, parts: Sequence[Part]) -> None:
        """Fill in what the parts want; each stream holds the row's clean tokens behind its prefix afterwards."""
        for part in parts:
            part.row.begin(len(part.clean[0][1].tokens) if part.clean else 0)
            self._context.cut(part.stream, part.row.base)
        self._context.use(())
        pieces = [part.pieces() for part in parts]
        for number in range(max(map(len, pieces), default=0)):
            now = [own[number] for own in pieces if number < len(own)]
            for shared in _shared(now, lambda piece: (len(piece.tokens), piece.rotary is None)):
                self._clean(shared)
        for part in parts:
            self._context.cut(part.stream, part.row.base + part.length)
        if any(part.opened for part in parts):
            self._context.use(((self._adapter, 1.0),))
            self._open(parts)

    def _clean(self, pieces: Sequence[Piece]) -> None:
        runs = [self._run(piece) for piece in pieces]
        for piece, rows in zip(pieces, self._context.decode(runs, causal=True), strict=True):
            piece.part.calls[0] += 1
            piece.part.rows |= {piece.begin + index: row for index, row in zip(piece.wanted, rows, strict=True)}

    def _run(self, piece: Piece) -> Run:
        stream, begin = piece.part.stream, piece.part.row.base + piece.begin
        if piece.rotary is None:
            return Run(stream, begin, piece.tokens, wanted=piece.wanted)
        return PlacedRun(stream, begin, (), self.embedded(piece.tokens), piece.wanted, piece.rotary)

    def embedded(self, tokens: Sequence[int]) -> "NDArray[np.float32]":
        """Embeddings [tokens, width], the mask's too."""
        info = self._header.tensors["token_embd.weight"]
        size = info.shape[0]
        found = read_rows(self._header, info, [min(token, size - 1) for token in tokens])
        found[[token >= size for token in tokens]] = self._mask
        return found

    def _open(self, parts: Sequence[Part]) -> None:
        for number in count():
            chosen = [(part, *part.opened[number]) for part in parts if number < len(part.opened)]
            if not chosen:
                return
            now: list[_Opened] = []
            try:
                for part, index, segment, seen in chosen:
                    now.append((part, index, segment, self._ground(part, seen), part.row.base + seen))
                for shared in _shared(now, lambda item: (len(item[2].tokens), True)):
                    self._opened(shared)
            finally:
                for part, _, _, holder, length in now:
                    if holder is part.row:
                        self._context.cut(part.stream, length)
                    else:
                        self._shelf.give_back(holder)

    def _ground(self, part: Part, seen: int) -> Holder:
        """Who has the stream of what an open segment sees: the row itself, or a holder of a copy that ends earlier."""
        if seen == part.length:
            return part.row
        holder = Scratch()
        try:
            self._context.copy(part.stream, part.row.base + seen, self._shelf.stream(holder))
            return holder
        except BaseException:
            self._shelf.give_back(holder)
            raise

    def _opened(self, items: Sequence[_Opened]) -> None:
        runs = [
            PlacedRun(
                cast(int, holder.stream),
                length,
                (),
                self.embedded(segment.tokens),
                tuple(sorted(segment.wanted)),
                list(segment.positions),
            )
            for _, _, segment, holder, length in items
        ]
        for item, rows in zip(items, self._context.decode(runs, causal=False, hidden=True), strict=True):
            part, number, segment = item[:3]
            part.calls[1] += 1
            part.found[number] = rows[np.argsort(np.argsort(list(segment.wanted)))] if segment.wanted else rows


def _shared(items: Iterable[_Item], shape: Callable[[_Item], tuple[int, bool]]) -> Iterator[list[_Item]]:
    """Items that share a call: equal in size and kind, together not too long; those of one token alone."""
    groups: dict[Hashable, list[_Item]] = {}
    for item in items:
        size, kind = shape(item)
        groups.setdefault(id(item) if size == 1 else (size, kind), []).append(item)
    for group in groups.values():
        share = max(CHUNK // shape(group[0])[0], 1)
        for begin in range(0, len(group), share):
            yield group[begin : begin + share]
