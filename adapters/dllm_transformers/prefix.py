"""`past_key_values` (since transformers 5.24: `cache`) across the turns of a conversation."""

from transformers import Cache

from dllm_plugins.caches.kept import KeptPrefixes

#: Enough for a long conversation of a few rows; the least recently used go first.
POSITIONS = 32768


class PrefixCache(Cache):
    """What generate() may leave for its next call, and takes up again there.

    Pass an empty one, or the one a dict-like output holds, with the whole conversation as
    input_ids: rows whose tokens begin as an earlier row did forward only the rest. The
    keys and values are the engine's, bit for bit; memory is freed with this object.

    :param positions: most positions to hold.
    """

    def __init__(self, positions: int = POSITIONS) -> None:
        super().__init__(layers=[])
        self.prefixes = KeptPrefixes(positions)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions of the longest prefix held."""
        return self.prefixes.longest
