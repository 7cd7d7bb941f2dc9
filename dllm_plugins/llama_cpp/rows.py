"""The rows of a llama.cpp denoiser, and what each knows of its stream of keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from dllm_plugins.denoisers.base import PrefixState
from dllm_plugins.denoisers.rows import Handles
from dllm_plugins.errors import GgufError
from dllm_plugins.errors import OptionError
from dllm_plugins.llama_cpp.context import Context
from dllm_plugins.llama_cpp.model import GgufModel
from dllm_plugins.llama_cpp.prefix import Prefix
from dllm_plugins.llama_cpp.prefix import Shelf
from dllm_plugins.messages import message


@dataclass(slots=True, weakref_slot=True)
class LlamaRow:
    """`frozen` positions that are exact, `held` ones behind them, and those of the last pass's first segment.

    Whatever else the stream holds is dropped when the next pass begins.

    :param stream: None for a model without a memory.
    :param base: positions before the first segment of the last pass.
    :param pending: positions of that segment.
    """

    stream: int | None = None
    frozen: int = 0
    held: int = 0
    base: int = 0
    pending: int = 0

    @property
    def length(self) -> int:
        """What the next pass stands on."""
        return self.frozen + self.held

    def begin(self, pending: int) -> None:
        """A pass begins; so many tokens has its first segment."""
        self.base, self.pending = self.length, pending

    def freeze(self, count: int) -> None:
        """The first `count` pending tokens join the prefix; held keys go.

        :raises GgufError: if the model keeps no keys, if held ones stand before these, or there are not so many.
        """
        reason = None
        if self.stream is None:
            reason = "the model keeps no keys"
        elif self.base > self.frozen:
            reason = "held keys stand before them"
        elif count > self.pending:
            reason = f"only {self.pending} were forwarded"
        if count and reason:
            raise GgufError(f"{count} tokens cannot join the prefix: {reason}; choose another mode")
        self.held = 0
        self.frozen += count

    def hold(self, kept: Sequence[int], name: str) -> None:
        """Keep these pending keys, in place of those held so far.

        :param name: the model's, for the error.
        :raises OptionError: unless they are the ones right behind the prefix.
        """
        begin = self.frozen - self.base
        if self.stream is None or begin < 0 or list(kept) != list(range(begin, begin + len(kept))):
            raise OptionError(
                message(
                    "{} cannot keep keys behind those it computes anew: llama.cpp only continues at the "
                    "end of what it holds; use {approximate_cache}='prefix' where the model keeps keys, or "
                    "none",
                    name,
                )
            )
        self.held = len(kept)


class LlamaRows(Handles[LlamaRow]):
    """Part of both llama.cpp denoisers: rows by handle, each with a stream of one context.

    :param model: closed together with this.
    """

    def __init__(self, model: GgufModel, context: Context) -> None:
        super().__init__()
        self.model = model
        self.context = context
        self._shelf = Shelf(context)

    def close(self) -> None:
        """Give all of llama.cpp's memory back; nothing can be decoded any more."""
        self.model.close()

    def open_row(self, prefix: PrefixState | None = None, length: int = 0) -> int:
        """A handle with an empty prefix, or with a copy of the first `length` positions of a kept one."""
        row = LlamaRow()
        if self.model.has_memory and prefix is None:
            self._shelf.stream(row)
        elif self.model.has_memory:
            self._shelf.take(cast(Prefix, prefix), length, row)
            row.frozen = length
        return self._open(row)

    def close_row(self, row: int) -> Prefix:
        """End the row and hand out its prefix; dropping that gives the memory back."""
        ended = self._rows.pop(row)
        if ended.stream is None or self.context.closed:
            return Prefix(0)
        return self._shelf.keep(ended, ended.frozen)
