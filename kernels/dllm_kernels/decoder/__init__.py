"""The block decoder: a decoder-only transformer over [rows x positions] on cached prefixes.

Llama, Qwen2 (biases of query, key and value) and Qwen3 (norms of query and key heads)
shapes, grouped keys, tied or untied head. `reference` is torch alone and says what is computed; the others are
faster where they run.
"""

from typing import Any

import torch

from dllm_kernels.compiled import library
from dllm_kernels.decoder.base import Decoder
from dllm_kernels.decoder.base import Part
from dllm_kernels.decoder.base import Store
from dllm_kernels.decoder.store import KeyValues
from dllm_kernels.decoder.weights import AnyWeights
from dllm_kernels.decoder.weights import DecoderShape
from dllm_kernels.decoder.weights import DecoderWeights
from dllm_kernels.decoder.weights import LayerWeights
from dllm_kernels.decoder.weights import LowRankPair
from dllm_kernels.decoder.weights import StoredLayer
from dllm_kernels.decoder.weights import StoredWeights
from dllm_kernels.decoder.weights import devices_of
from dllm_kernels.decoder.weights import release
from dllm_kernels.decoder.weights import shape_of
from dllm_kernels.decoder.weights import take_weights
from dllm_kernels.dispatch import Implementation
from dllm_kernels.dispatch import Shapes
from dllm_kernels.dispatch import register
from dllm_kernels.onednn import packing_fault

__all__ = [
    "INT8_KERNEL",
    "KERNEL",
    "AnyWeights",
    "Decoder",
    "DecoderShape",
    "DecoderWeights",
    "KeyValues",
    "LayerWeights",
    "LowRankPair",
    "Part",
    "Store",
    "StoredLayer",
    "StoredWeights",
    "devices_of",
    "release",
    "shape_of",
    "take_weights",
]

#: Its name in the dispatch; what it gives is called with :class:`DecoderWeights`.
KERNEL = "block_decoder"
#: The same with int8 linear layers and head, see :mod:`dllm_kernels.int8`. What it decodes is
#: lossless with respect to the quantised model only.
INT8_KERNEL = "block_decoder_int8"


def _load_plain() -> Any:
    from dllm_kernels.decoder.plain import PlainDecoder

    return PlainDecoder


def _load_packed() -> Any:
    from dllm_kernels.decoder.plain import PackedDecoder

    return PackedDecoder


def _load_gpu() -> Any:
    from dllm_kernels.decoder.gpu import GpuDecoder

    return GpuDecoder


def _load_int8() -> Any:
    from dllm_kernels.decoder.plain import Int8Decoder

    return Int8Decoder


def _takes_all(_device: torch.device, _dtype: torch.dtype, _shapes: Shapes) -> str | None:
    return None


def _cpu_refuses(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cpu":
        return f"runs on the cpu only, not on {device.type}"
    if dtype not in (torch.float32, torch.bfloat16):
        return f"computes in float32 or bfloat16, not in {dtype}"
    return None


def _packed_refuses(device: torch.device, dtype: torch.dtype, _shapes: Shapes) -> str | None:
    return _cpu_refuses(device, dtype) or packing_fault(dtype)


register(Implementation(KERNEL, "reference", 0, _load_plain, _takes_all))
register(Implementation(KERNEL, "packed", 20, _load_packed, _packed_refuses))


def _load_compiled() -> Any:
    from dllm_kernels.decoder.compiled import CompiledDecoder

    return CompiledDecoder


def _load_compiled_int8() -> Any:
    from dllm_kernels.decoder.compiled import CompiledInt8Decoder

    return CompiledInt8Decoder


def _compiled_refuses(device: torch.device, dtype: torch.dtype, shapes: Shapes) -> str | None:
    if (reason := _cpu_refuses(device, dtype)) is not None:
        return reason
    odd = [name for name in ("hidden", "intermediate", "head_dim") if shapes[name] % 2]
    if odd and dtype == torch.bfloat16:
        return f"multiplies bfloat16 in pairs, so {odd[0]}={shapes[odd[0]]} must be even"
    return library.why_not()


def _compiled_int8_refuses(device: torch.device, dtype: torch.dtype, shapes: Shapes) -> str | None:
    reason = _compiled_refuses(device, dtype, shapes)
    if reason is None and not library.load().dllm_has_int8():
        return "multiplies int8 on processors with AVX-512 VNNI only"
    return reason


register(Implementation(KERNEL, "compiled", 30, _load_compiled, _compiled_refuses))


def _gpu_refuses(device: torch.device, dtype: torch.dtype, _shapes: Shapes) -> str | None:
    if device.type != "cuda":
        return f"runs on GPUs, not on {device.type}"
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"sums in float32, so it does not take {dtype}"
    return None


register(Implementation(KERNEL, "gpu", 20, _load_gpu, _gpu_refuses))
register(Implementation(INT8_KERNEL, "reference", 0, _load_int8, _takes_all))
register(Implementation(INT8_KERNEL, "compiled", 30, _load_compiled_int8, _compiled_int8_refuses))
