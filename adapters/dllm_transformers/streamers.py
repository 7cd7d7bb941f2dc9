"""Committed ids and drafts to transformers' streamers, one row or several."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any
from typing import Protocol

import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from dllm_plugins.errors import OptionError


class BatchStreamer(BaseStreamer):
    """One streamer for each row of a batch: `BatchStreamer([TextIteratorStreamer(tokenizer) for _ in prompts])`.

    :param rows: streamers, in the order of the batch (with `num_return_sequences`, of its rows).
    """

    def __init__(self, rows: Sequence[BaseStreamer]) -> None:
        self.rows = list(rows)
        self._open = set(range(len(self.rows)))

    def put(self, value: Tensor) -> None:
        """The prompts, int64 [batch, length].

        :raises OptionError: if there are more or fewer rows than streamers.
        """
        if value.dim() != 2 or len(value) != len(self.rows):
            raise OptionError(
                f"BatchStreamer holds {len(self.rows)} streamers, the batch is {tuple(value.shape)}; "
                f"give it one streamer for each row"
            )
        for streamer, row in zip(self.rows, value, strict=True):
            streamer.put(row)

    def put_row(self, row: int, value: Tensor) -> None:
        """Committed ids of one row, int64 [n]."""
        self.rows[row].put(value)

    def put_row_draft(self, row: int, value: Tensor) -> None:
        """Tentative ids of one row, int64 [1, n]."""
        draw = getattr(self.rows[row], "put_draft", None)
        if draw is not None:
            draw(value)

    def end_row(self, row: int) -> None:
        """One row is done; its streamer ends."""
        if row in self._open:
            self._open.discard(row)
            self.rows[row].end()

    def end(self) -> None:
        """Every row is done."""
        for row in sorted(self._open):
            self.end_row(row)


class Delivery(Protocol):
    """Where the ids of a batch go while it is decoded."""

    def commit(self, row: int, tokens: Sequence[int]) -> None:
        """Final ids of one row, in order."""

    def draft(self, row: int, tokens: Sequence[int | None]) -> None:
        """Tentative ids behind the final ones; None where open."""

    def end_row(self, row: int) -> None:
        """No more ids of this row come."""

    def end(self) -> None:
        """No more ids of any row come."""


def delivery(streamer: Any, batch: int, pad: int) -> Delivery:
    """How a streamer is served: not at all, by its rows, or column by column as AR decoding would."""
    if streamer is None:
        return _Nowhere()
    if isinstance(streamer, BatchStreamer):
        return _ByRow(streamer)
    return _ByColumn(streamer, batch, pad)


class _Nowhere:
    def commit(self, row: int, tokens: Sequence[int]) -> None:
        pass

    def draft(self, row: int, tokens: Sequence[int | None]) -> None:
        pass

    def end_row(self, row: int) -> None:
        pass

    def end(self) -> None:
        pass


def _known(tokens: Sequence[int | None]) -> list[int]:
    return [token for token in takewhile(lambda token: token is not None, tokens) if token is not None]


class _ByRow:
    def __init__(self, streamer: BatchStreamer) -> None:
        self._streamer = streamer

    def commit(self, row: int, tokens: Sequence[int]) -> None:
        self._streamer.put_row(row, torch.tensor(tokens))

    def draft(self, row: int, tokens: Sequence[int | None]) -> None:
        known = _known(tokens)
        if known:
            self._streamer.put_row_draft(row, torch.tensor([known]))

    def end_row(self, row: int) -> None:
        self._streamer.end_row(row)

    def end(self) -> None:
        self._streamer.end()


class _ByColumn:
    """A column goes out once every row has it: int64 [batch], or [n] if there is one row only.

    Rows that have ended continue with the pad token.
    """

    def __init__(self, streamer: Any, batch: int, pad: int) -> None:
        self._streamer, self._pad = streamer, pad
        self._rows: list[list[int]] = [[] for _ in range(batch)]
        self._drafts: list[list[int]] = [[] for _ in range(batch)]
        self._ended = [False] * batch
        self._draw = getattr(streamer, "put_draft", None)

    def commit(self, row: int, tokens: Sequence[int]) -> None:
        self._rows[row] += tokens
        self._drafts[row] = []
        self._flush()

    def draft(self, row: int, tokens: Sequence[int | None]) -> None:
        self._drafts[row] = _known(tokens)
        tentative = [left + drafted for left, drafted in zip(self._rows, self._drafts, strict=True)]
        width = max(len(row) for row in tentative)
        if self._draw is not None and width:
            self._draw(torch.tensor([row + [self._pad] * (width - len(row)) for row in tentative]))

    def end_row(self, row: int) -> None:
        self._ended[row], self._drafts[row] = True, []
        self._flush()

    def end(self) -> None:
        self._streamer.end()

    def _flush(self) -> None:
        """Hand out the columns that all unfinished rows have."""
        going = [len(row) for row, ended in zip(self._rows, self._ended, strict=True) if not ended]
        ready = min(going) if going else max(len(row) for row in self._rows)
        if ready == 0:
            return
        columns = [[*row[:ready], *[self._pad] * (ready - len(row[:ready]))] for row in self._rows]
        self._rows = [row[ready:] for row in self._rows]
        if len(columns) == 1:
            self._streamer.put(torch.tensor(columns[0]))
            return
        for column in torch.tensor(columns).T:
            self._streamer.put(column.contiguous())
