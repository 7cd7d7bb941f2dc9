"""A streamer for each row of a batch."""

from collections.abc import Sequence

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
        """The canvas of one row behind its committed ids, int64 [1, n]."""
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
