"""`past_key_values` (since transformers 5.24: `cache`) across the turns of a conversation."""

from collections.abc import Iterable

from transformers import Cache

from dllm_plugins import plugins
from dllm_plugins.errors import OptionError
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.modes.base import Sampler
from dllm_plugins.sharing import SharedModel

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


def sampler_of(shared: SharedModel, mode: str | None) -> Sampler | None:
    """What decodes a mode of the model, its first if none is named; None for an unknown one."""
    spec = shared.model.denoiser.spec
    name = mode or spec.modes[0]
    return plugins.modes().get(spec.samplers.get(name, name))


def prefix_cache(
    given: PrefixCache | None, shared: SharedModel, modes: Iterable[str | None], wanted: bool
) -> PrefixCache | None:
    """The cache a call fills: the one handed in, or a new one if the caller gets to see it.

    :param modes: as asked for, of all rows; None for the model's first.
    :raises OptionError: for one handed in where nothing would be kept.
    """
    for mode in modes:
        sampler = sampler_of(shared, mode)
        if sampler is not None and not sampler.keeps_prefix:
            if given is None:
                return None
            spec = shared.model.denoiser.spec
            raise OptionError(
                f"mode {mode or spec.modes[0]!r} of {spec.name} keeps no prefix between calls; leave the PrefixCache "
                f"out"
            )
    return PrefixCache() if given is None and wanted else given
