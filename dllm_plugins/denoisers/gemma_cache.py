"""Keys and values of one row whose layers see different stretches of its past."""

from collections.abc import Sequence
from typing import Any

from dllm_plugins.denoisers.native_cache import Layers
from dllm_plugins.denoisers.native_cache import NativeCache
from dllm_plugins.denoisers.native_cache import as_cache


class WindowedCache(NativeCache):
    """The frozen prefix of all layers, whole, so that any first part of it can serve another row.

    :param windows: per layer, how many of the last cached positions a pass sees; None for all.
    """

    def __init__(self, windows: Sequence[int | None]) -> None:
        super().__init__()
        self.windows = windows

    def first(self, length: int) -> "WindowedCache":
        """The first `length` positions of the prefix; nothing is copied."""
        made = WindowedCache(self.windows)
        made.prefix = super().first(length).prefix
        return made

    def opened(self) -> Any:
        """A transformers cache of what a pass sees of the prefix; it may append freely."""
        return as_cache(self._last(self.prefix))

    def behind(self, cache: Any, forwarded: int, count: int) -> Any:
        """What is seen behind the first `count` of `forwarded` tokens that were just appended to `cache`."""
        cut = forwarded - count
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        return as_cache(
            self._last(
                [(keys[:, :, : keys.shape[2] - cut], values[:, :, : values.shape[2] - cut]) for keys, values in layers]
            )
        )

    def pend(self, cache: Any, count: int) -> None:
        """Take the keys of the last `count` tokens of `cache`; :meth:`freeze` decides about them."""
        layers = [] if cache is None else [(layer.keys, layer.values) for layer in cache.layers]
        self._pending = [
            (keys[:, :, keys.shape[2] - count :], values[:, :, values.shape[2] - count :]) for keys, values in layers
        ]

    def _last(self, layers: Layers) -> Layers:
        """The last positions of each layer that its window reaches."""
        found: Layers = []
        for (keys, values), window in zip(layers, self.windows, strict=False):
            begin = 0 if window is None else max(keys.shape[2] - window, 0)
            found.append((keys[:, :, begin:], values[:, :, begin:]))
        return found
