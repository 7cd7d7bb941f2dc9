"""Uniform noise: an open position holds any token, each equally likely (arXiv 2107.03006)."""

from dataclasses import dataclass

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.noise import Key
from dllm_plugins.noise import RowNoise


@dataclass(frozen=True, slots=True)
class UniformProcess:
    """What open positions hold when no token means "unknown"."""

    name: str = "uniform"

    def noised(
        self, count: int, spec: ModelSpec, noise: RowNoise | None = None, key: Key | None = None
    ) -> tuple[int, ...]:
        """`count` ids of the vocabulary, drawn from the row's noise."""
        assert noise is not None and key is not None, "uniform noise is drawn"
        drawn: list[int] = noise.tokens(key, count, spec.vocabulary).tolist()
        return tuple(drawn)
