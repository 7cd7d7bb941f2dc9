"""A row of a llama.cpp denoiser: what it knows of its stream of keys."""

from collections.abc import Sequence
from dataclasses import dataclass

from dllm_plugins.errors import GgufError
from dllm_plugins.errors import OptionError
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
