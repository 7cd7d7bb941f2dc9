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

    def exceeds(self, first: "Size") -> bool:
        """Whether it is so much more than another one that keeping it for the next rows is a waste."""
        return (
            self.streams * self.positions > _MUCH * first.streams * first.positions
            or self.tokens > _MUCH * first.tokens
        )


def _enough(now: int, needed: int) -> int:
    return now if needed <= now else max(needed, 2 * now)
