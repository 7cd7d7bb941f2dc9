"""The contract of a noise process: what an open position holds."""

from typing import Protocol

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.noise import Key
from dllm_plugins.noise import RowNoise


class NoiseProcess(Protocol):
    """What a canvas looks like where nothing is known. Found by `name`."""

    @property
    def name(self) -> str:
        """What modes ask for."""

    def noised(
        self, count: int, spec: ModelSpec, noise: RowNoise | None = None, key: Key | None = None
    ) -> tuple[int, ...]:
        """`count` token ids of open positions.

        :param noise: the row's random numbers, for processes that draw.
        :param key: what the draw is for; another key gives other ids. Processes that draw need it.
        """
