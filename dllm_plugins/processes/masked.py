"""Masked (absorbing) noise: an open position holds the mask token (arXiv 2406.07524)."""

from dataclasses import dataclass

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.noise import Key
from dllm_plugins.noise import RowNoise


@dataclass(frozen=True, slots=True)
class MaskedProcess:
    """What open positions hold when every one of them is masked."""

    name: str = "masked"

    def noised(
        self, count: int, spec: ModelSpec, noise: RowNoise | None = None, key: Key | None = None
    ) -> tuple[int, ...]:
        """`count` times the mask id; nothing is drawn."""
        return (spec.mask_id,) * count
