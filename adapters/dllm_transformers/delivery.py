"""Committed ids and drafts to transformers' streamers, one row or several.

A draft is the whole canvas behind the committed ids, the mask id where it is open, as
transformers' own diffusion model hands out its canvas: after every pass, to `put_draft`.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from contextlib import suppress
from typing import Any
from typing import Protocol

import torch

from dllm_plugins.errors import OptionError
from dllm_transformers.streamers import BatchStreamer


class Delivery(Protocol):
    """Where the ids of a batch go while it is decoded."""

    def commit(self, row: int, tokens: Sequence[int]) -> None:
        """Final ids of one row, in order."""

    def draft(self, row: int, tokens: Sequence[int | None]) -> None:
        """The canvas behind the final ids as a pass left it; None where open."""

    def end_row(self, row: int) -> None:
        """No more ids of this row come."""

    def end(self) -> None:
        """No more ids of any row come."""


def delivery(streamer: Any, batch: int, pad: int, mask: int) -> Delivery:
    """How a streamer is served: not at all, by its rows, or column by column as AR decoding would.

    :param mask: the id that a draft holds where the canvas is open.
    :raises OptionError: for a streamer that asks for the logits of drafts.
    """
    if streamer is None:
        return _Nowhere()
    for one in (streamer, *getattr(streamer, "rows", ())):
        if getattr(one, "_takes_logits", False):
            raise OptionError(
                f"{type(one).__name__} has _takes_logits=True and wants the logits of drafts, which are not kept; "
                f"set it to False to be given ids"
            )
    if isinstance(streamer, BatchStreamer):
        return _ByRow(streamer, batch, mask)
    return _ByColumn(streamer, batch, pad, mask)


@contextmanager
def ending(streamer: Any) -> Iterator[None]:
    """Whatever is raised inside ends the streamer: another thread may be waiting for its next text."""
    try:
        yield
    except BaseException as error:
        # Two of these stand inside one another where a model's own generate() is called.
        if streamer is not None and getattr(error, "ended_streamer", None) is not streamer:
            error.ended_streamer = streamer  # type: ignore[attr-defined]
            with suppress(Exception):
                streamer.end()
        raise


class _Nowhere:
    def commit(self, row: int, tokens: Sequence[int]) -> None:
        pass

    def draft(self, row: int, tokens: Sequence[int | None]) -> None:
        pass

    def end_row(self, row: int) -> None:
        pass

    def end(self) -> None:
        pass


class _Canvases:
    """The drafts of all rows, the mask id where open, and whether one is on show.

    An empty canvas is worth telling only where it takes the place of another.
    """

    def __init__(self, batch: int, mask: int) -> None:
        self._mask = mask
        self._shown = [False] * batch
        self.tokens: list[list[int]] = [[] for _ in range(batch)]

    def take(self, row: int, tokens: Sequence[int | None]) -> bool:
        """A row's new canvas; whether there is anything to show."""
        self.tokens[row] = [self._mask if token is None else token for token in tokens]
        shown, self._shown[row] = self._shown[row], bool(tokens)
        return shown or bool(tokens)

    def clear(self, row: int) -> None:
        """A row's final ids have taken the place of its canvas."""
        self.tokens[row], self._shown[row] = [], False


class _ByRow:
    """Each row to a streamer of its own, as fast as it is decoded: drafts are int64 [1, n]."""

    def __init__(self, streamer: BatchStreamer, batch: int, mask: int) -> None:
        self._streamer = streamer
        self._canvases = _Canvases(batch, mask)

    def commit(self, row: int, tokens: Sequence[int]) -> None:
        self._canvases.clear(row)
        self._streamer.put_row(row, torch.tensor(tokens))

    def draft(self, row: int, tokens: Sequence[int | None]) -> None:
        if self._canvases.take(row, tokens):
            self._streamer.put_row_draft(row, torch.tensor([self._canvases.tokens[row]], dtype=torch.int64))

    def end_row(self, row: int) -> None:
        self._streamer.end_row(row)

    def end(self) -> None:
        self._streamer.end()


class _ByColumn:
    """A column goes out once every row has it: int64 [batch], or [n] if there is one row only.

    Rows that have ended continue with the pad token. Drafts are int64 [batch, n], once for
    all rows that a pass went over: what waits to go out, then the canvas.
    """

    def __init__(self, streamer: Any, batch: int, pad: int, mask: int) -> None:
        self._streamer, self._pad = streamer, pad
        self._rows: list[list[int]] = [[] for _ in range(batch)]
        self._canvases = _Canvases(batch, mask)
        self._going = set(range(batch))
        self._awaited = set(self._going)
        self._worth = False
        self._draw = getattr(streamer, "put_draft", None)

    def commit(self, row: int, tokens: Sequence[int]) -> None:
        self._rows[row] += tokens
        self._canvases.clear(row)
        self._flush()

    def draft(self, row: int, tokens: Sequence[int | None]) -> None:
        self._worth |= self._canvases.take(row, tokens)
        self._passed(row)

    def end_row(self, row: int) -> None:
        self._going.discard(row)
        self._canvases.clear(row)
        self._flush()
        self._passed(row)

    def end(self) -> None:
        self._streamer.end()

    def _passed(self, row: int) -> None:
        """Draw once the pass has been told of every row that goes on."""
        self._awaited.discard(row)
        if self._awaited:
            return
        self._awaited = set(self._going)
        worth, self._worth = self._worth, False
        if self._draw is None or not worth:
            return
        drafts = [left + canvas for left, canvas in zip(self._rows, self._canvases.tokens, strict=True)]
        width = max(len(draft) for draft in drafts)
        self._draw(torch.tensor([draft + [self._pad] * (width - len(draft)) for draft in drafts], dtype=torch.int64))

    def _flush(self) -> None:
        """Hand out the columns that all unfinished rows have."""
        ready = min((len(self._rows[row]) for row in self._going), default=max(len(row) for row in self._rows))
        if ready == 0:
            return
        columns = [[*row[:ready], *[self._pad] * (ready - len(row[:ready]))] for row in self._rows]
        self._rows = [row[ready:] for row in self._rows]
        if len(columns) == 1:
            self._streamer.put(torch.tensor(columns[0]))
            return
        for column in torch.tensor(columns).T:
            self._streamer.put(column.contiguous())
