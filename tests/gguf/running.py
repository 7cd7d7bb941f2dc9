"""Tiny models behind both denoisers, for tests of what llama.cpp runs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.native import NativeDenoiser
from dllm_plugins.llama_cpp.denoiser import LlamaCppDenoiser
from dllm_plugins.llama_cpp.model import GgufModel

from . import tiny


def spec(*modes: str, **fields: Any) -> ModelSpec:
    """Of the tiny models; the sampler behind mode `diffusion` is named first."""
    return ModelSpec(
        **{
            "name": "tiny",
            "vocabulary": tiny.VOCABULARY,
            "mask_id": tiny.MASK,
            "context": tiny.CONTEXT,
            "stop_ids": frozenset(),
            "block_length": 8,
            "draft_length": 0,
            "modes": ("diffusion", *modes),
            "samplers": {"diffusion": modes[0]} if modes else {},
            "draft_head": False,
            "cache": "exact",
            "numerics": "approximate",
            **fields,
        }
    )


def ours(both: tiny.Tiny, keys: str = "F32", **fields: Any) -> LlamaCppDenoiser:
    """llama.cpp, with float32 keys unless told otherwise."""
    return LlamaCppDenoiser(GgufModel(both.path), spec(**fields), keys)


def theirs(both: tiny.Tiny, **fields: Any) -> NativeDenoiser:
    """torch, float32."""
    return NativeDenoiser(both.model, spec(**fields))


def forward(denoiser: Any, segments: Sequence[Segment]) -> list[Tensor]:
    """Logits of a pass."""
    with torch.inference_mode():
        return [denoiser.logits(hidden) for hidden in denoiser.forward(segments)]


def prefixed(denoiser: Any, length: int, seed: int = 1) -> int:
    """A row with a causal prefix."""
    row: int = denoiser.open_row()
    denoiser.forward([Segment(row, tiny.tokens(length, seed), range(length))])
    denoiser.freeze(row, length)
    return row


def noisy(row: int, begin: int, length: int = 6, seed: int = 5, **fields: Any) -> Segment:
    """A block of which every second position is open."""
    ids = tiny.tokens(length, seed)
    ids[::2] = [tiny.MASK] * len(ids[::2])
    places = range(begin, begin + length)
    return Segment(row, ids, places, **{"noisy": True, "causal": False, "wanted": range(length), **fields})


def same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Within 1e-4."""
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def equal(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Bit for bit."""
    return all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
