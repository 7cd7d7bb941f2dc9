"""What a llama.cpp context has room for, and how that grows."""

from dataclasses import dataclass

#: llama.cpp rounds a stream's positions up to this.
_UNIT = 256
#: Some rows of some length are nothing unusual, and growing takes time.
_MUCH = 16


@dataclass(frozen=True, slots=True)
class Size:
    """What a context has room for: streams, positions a stream, tokens a call."""

    streams: int = 1
    positions: int = 512
    tokens: int = 512

    def grown(self, streams: int, positions: int, tokens: int, most: int) -> "Size":
        """Room for that much; what does not fit is at least doubled, so that growing stays rare.

        :param most: streams that llama.cpp can have.
        """
        streams = min(_enough(self.streams, streams), most)
        # llama.cpp cuts a call to the length of the whole context, and aborts at more streams than tokens.
        tokens = max(_enough(self.tokens, tokens), streams)
        positions = max(_enough(self.positions, positions), tokens)
        return Size(streams, -(-positions // _UNIT) * _UNIT, tokens)

    @classmethod
    def holding(cls, streams: int, positions: int) -> "Size":
        """What it has become at most when it holds so many streams, opened one after another, up to so long each."""
        first = cls()
        longest = first.positions if positions <= first.positions else 2 * positions
        return cls(1 << (streams - 1).bit_length(), -(-longest // _UNIT) * _UNIT)

    @property
    def cells(self) -> int:
        """Positions of all streams."""
        return self.streams * self.positions

    def exceeds(self, first: "Size") -> bool:
        """Whether it is so much more than another one that keeping it for the next rows is a waste."""
        return self.cells > _MUCH * first.cells or self.tokens > _MUCH * first.tokens


def _enough(now: int, needed: int) -> int:
    return now if needed <= now else max(needed, 2 * now)
