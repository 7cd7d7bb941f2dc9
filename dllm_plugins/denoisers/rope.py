"""Rotary positions of a Llama or Qwen: the frequencies of `config.json`, as transformers makes them of it.

Source: rotary embeddings arXiv 2104.09864, stretched for longer contexts by one factor ("linear") or, in Llama 3, by a
factor for slow pairs only ("llama3").
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dllm_plugins.errors import CheckpointError
from dllm_plugins.messages import shown

KINDS = ("default", "linear", "llama3")
_NEEDED: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


@dataclass(frozen=True, slots=True)
class Rope:
    """How frequencies are stretched; the numbers are those of the config, and 1 where its kind has none.

    :param kind: one of :data:`KINDS`.
    """

    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_max_position_embeddings: float = 1.0

    @classmethod
    def from_config(cls, rope: Mapping[str, Any], origin: str, remedy: str) -> "Rope":
        """Read `rope_parameters`, or the older `rope_scaling`.

        :param origin: the file, and `remedy` what to do about it, for errors.
        :raises CheckpointError: for another kind, and for numbers that none has.
        """
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in KINDS:
            raise CheckpointError(
                f"{origin} says rope_type={shown(kind)}, and a base has one of {', '.join(KINDS)}; {remedy}"
            )
        partial = rope.get("partial_rotary_factor", 1.0)
        if partial != 1.0:
            raise CheckpointError(f"{origin} says partial_rotary_factor={shown(partial)}, and must say 1; {remedy}")
        found = {name: _number(rope, name, origin, remedy) for name in _NEEDED[kind]}
        made = cls(kind, **found)
        if kind == "llama3" and made.low_freq_factor >= made.high_freq_factor:
            raise CheckpointError(
                f"{origin} says rope low_freq_factor={made.low_freq_factor:g}, which must be below "
                f"high_freq_factor={made.high_freq_factor:g}; {remedy}"
            )
        return made

    def frequencies(self, theta: float, head_dim: int) -> Tensor:
        """Float32 [head_dim / 2], radians per position of each pair."""
        plain = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
        if self.kind == "default":
            return plain
        if self.kind == "linear":
            return plain / self.factor
        # How often a pair turns within the context it was first trained on decides between stretched and not.
        turns = self.original_max_position_embeddings / (2 * math.pi / plain)
        share = ((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)).clamp(0, 1)
        return (1 - share) * plain / self.factor + share * plain


def _number(rope: Mapping[str, Any], name: str, origin: str, remedy: str) -> float:
    value = rope.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1e12:
        raise CheckpointError(f"{origin} says rope {name}={shown(value)}; it must be a positive number: {remedy}")
    return float(value)
