"""Where the drafter of a pair puts open positions behind a text, by who sees whom in its family."""

from dataclasses import dataclass
from typing import Literal

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import message

#: What is forwarded for a draft: all of the text; what is new of it, in one canvas with the open positions; the block
#: that the text ends in, behind whole blocks; the open positions alone, behind a causal text; the same at the rotary
#: positions of the tokens before them, with a head that knows the token on the left (the default model).
Kind = Literal["whole", "canvas", "blocks", "behind", "open"]


def kind_of(spec: ModelSpec) -> Kind:
    """How a model drafts.

    :raises OptionError: for one without open positions that hold a mask.
    """
    if spec.draft_head:
        return "open"
    if spec.mask_id >= spec.vocabulary:
        raise OptionError(
            message(
                "{} cannot draft for a pair: it has no mask for positions that are open; take a masked diffusion "
                "model, or the default model dllm",
                spec.name,
            )
        )
    if spec.attention == "own" or (spec.attention == "bidirectional" and not spec.holds):
        return "whole"
    if spec.attention == "bidirectional":
        return "canvas"
    return "blocks" if spec.attention == "block-causal" else "behind"


@dataclass(frozen=True, slots=True)
class Places:
    """One model's drafts.

    :param kind: see :func:`kind_of`.
    """

    spec: ModelSpec
    kind: Kind

    def usable(self, length: int) -> int:
        """How much of a prefix of this length can be taken over by a text that begins with the same tokens."""
        return length - length % self.spec.block_length if self.kind == "blocks" else length

    def room(self, length: int) -> int:
        """How many tokens can be drafted behind a text of this length."""
        return max(0, self.spec.context - length)

    def laid(self, row: int, text: list[int], frozen: int, count: int) -> tuple[list[Segment], int]:
        """The segments of one draft, and how many tokens of the first one join the prefix.

        The last segment's wanted positions are those of the `count` drafts. Its canvas has room for a block, as in
        training, where what is open sees what is open behind it.
        """
        length, mask = len(text), self.spec.mask_id
        shift = int(self.spec.shifted or self.kind == "open")
        begin = self._begin(length - shift, frozen)
        end = min(self._end(length, begin, count), self.spec.context)
        if self.kind == "open":
            behind = Segment(row, text[frozen:], range(frozen, length))
            places = range(begin, begin + count)
            seen = ((0, len(behind.tokens)),)
            group = Segment(row, [mask] * count, places, noisy=True, causal=False, behind=seen, wanted=range(count))
            return [behind, group], len(behind.tokens)
        before, context = range(frozen, begin), list[Segment]()
        if before:
            groups = [place // self.spec.block_length for place in before] if self.kind == "blocks" else None
            context.append(Segment(row, text[frozen:begin], before, groups=groups))
        tokens = [*text[begin:], *[mask] * (end - length)]
        if self.kind == "behind":
            # Nothing sees the row behind the last one that is wanted, or it is not there.
            tokens = tokens[: max(len(tokens) - shift, length - begin)]
        first = length - shift - begin
        canvas = Segment(
            row,
            tokens,
            range(begin, begin + len(tokens)),
            noisy=True,
            causal=self.kind == "behind" and self.spec.attention != "causal context, bidirectional block",
            behind=((0, len(before)),) if context else (),
            wanted=range(first, first + count),
        )
        return [*context, canvas], max(0, first) if self.kind == "canvas" else len(before)

    def _begin(self, newest: int, frozen: int) -> int:
        """Where the canvas begins; `newest` is the first row that has to be in it."""
        if self.kind == "whole":
            return 0
        if self.kind == "canvas":
            return frozen
        return newest - newest % self.spec.block_length if self.kind == "blocks" else newest

    def _end(self, length: int, begin: int, count: int) -> int:
        """Behind the last open position."""
        if self.kind == "blocks":
            return max(length + count, begin + self.spec.block_length)
        causal = self.kind == "behind" and self.spec.attention != "causal context, bidirectional block"
        return length + (count if causal else max(count, self.spec.block_length))
