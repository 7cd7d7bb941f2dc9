"""Writes golden.safetensors: tiny weights as other projects store them, and what they make of them again.

Run with compressed-tensors 0.20.1, bitsandbytes 0.50.2 and autoawq 0.2.9's `packing_utils.py` at hand:
`python tests/storage/produce.py PATH_OF_PACKING_UTILS`. The tests need none of them.
"""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import bitsandbytes.functional as bnb
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization import QuantizationScheme
from safetensors.torch import save_file
from torch import Tensor
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

ROWS, COLUMNS = 24, 32
Golden = dict[str, Tensor]
Settings = dict[str, Any]


def weight(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random, [ROWS, COLUMNS]."""
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed)).to(dtype)


def compressed(form: str, args: Settings, scale: Tensor, zero: Tensor | None = None) -> tuple[Golden, Settings]:
    """Compressed by the library, and decompressed by it."""
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**args))
    state = {"weight": weight(1), "weight_scale": scale} | ({} if zero is None else {"weight_zero_point": zero})
    library = BaseCompressor.get_value_from_registry(form)
    stored = library.compress(state, scheme)
    settings = {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": args}},
    }
    return {**stored, "=weight": library.decompress(dict(stored), scheme)["weight"]}, settings


def blocks(rows: int, columns: int, level: float) -> Tensor:
    """Scales of so many blocks."""
    return (torch.rand(rows, columns, generator=torch.Generator().manual_seed(2)) + 0.5) * level


def of_compressed() -> dict[str, tuple[Golden, Settings]]:
    """Every strategy and format that is read."""
    eight, zero = 1 / 32, torch.randint(-9, 9, (ROWS, 2), generator=torch.Generator().manual_seed(3), dtype=torch.int8)
    whole, real = {"num_bits": 8, "type": "int"}, {"num_bits": 8, "type": "float"}
    rows, few = {"strategy": "channel"}, {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 16}
    odd, block = {"symmetric": False}, {"strategy": "block", "block_structure": [16, 16]}
    return {
        "ct-int8-channel": compressed("int-quantized", {**whole, **rows}, blocks(ROWS, 1, eight)),
        "ct-int8-asymmetric": compressed(
            "int-quantized", {**whole, **rows, **odd}, blocks(ROWS, 1, eight), zero[:, :1]
        ),
        "ct-fp8-channel": compressed("float-quantized", {**real, **rows}, blocks(ROWS, 1, 0.01)),
        "ct-fp8-tensor": compressed("float-quantized", {**real, "strategy": "tensor"}, blocks(1, 1, 0.01)[0]),
        "ct-fp8-block": compressed("float-quantized", {**real, **block}, blocks(2, 2, 0.01)),
        "ct-int4-group": compressed("pack-quantized", few, blocks(ROWS, 2, 0.4)),
        "ct-int4-asymmetric": compressed(
            "pack-quantized", {**few, **odd}, blocks(ROWS, 2, 0.4), (zero // 2).clamp(-8, 7)
        ),
        "ct-int8-packed": compressed("pack-quantized", {**whole, **rows}, blocks(ROWS, 1, eight)),
    }


def of_bitsandbytes() -> dict[str, tuple[Golden, Settings]]:
    """Eight bits, and both tables of four, with scales of scales and without."""
    ints, peaks, _ = bnb.int8_vectorwise_quant(weight(4, torch.float16))
    found: dict[str, tuple[Golden, Settings]] = {
        "bnb-8bit": (
            {
                "weight": ints,
                "SCB": peaks,
                "weight_format": torch.tensor(0, dtype=torch.uint8),
                "=weight": bnb.int8_vectorwise_dequant(ints, peaks),
            },
            {"quant_method": "bitsandbytes", "load_in_8bit": True},
        )
    }
    for kind in ("nf4", "fp4"):
        for double in (False, True):
            packed, state = bnb.quantize_4bit(weight(5), quant_type=kind, compress_statistics=double, blocksize=64)
            parts = {f"weight.{name}": tensor for name, tensor in state.as_dict(packed=True).items()}
            made = {"weight": packed, **parts, "=weight": bnb.dequantize_4bit(packed, state)}
            found[f"bnb-{kind}{'-double' if double else ''}"] = (
                made,
                {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind},
            )
    return found


def of_fp8() -> dict[str, tuple[Golden, Settings]]:
    """Blocks that divide the weight, as transformers reads them; float32 scales and exponents."""
    stored = weight(6).to(torch.float8_e4m3fn)
    found = {}
    for name, scale in {
        "fp8-block": blocks(3, 2, 0.02),
        "fp8-ue8m0": blocks(3, 2, 0.02).to(torch.float8_e8m0fnu),
    }.items():
        library: Any = Fp8Dequantize(None)
        made = {"weight": stored.clone(), "weight_scale_inv": scale}
        made["=weight"] = library._dequantize_one(stored, scale, output_dtype=torch.float32)
        found[name] = (made, {"quant_method": "fp8", "weight_block_size": [8, 16]})
    return found


def of_awq(packing_utils: str) -> dict[str, tuple[Golden, Settings]]:
    """Random words, as autoawq unpacks them."""
    place = importlib.util.spec_from_file_location("packing_utils", packing_utils)
    assert place is not None and place.loader is not None
    library = importlib.util.module_from_spec(place)
    place.loader.exec_module(library)
    random = torch.Generator().manual_seed(7)

    def words(*shape: int) -> Tensor:
        return torch.randint(-(2**31), 2**31, shape, generator=random, dtype=torch.int64).to(torch.int32)

    made = {"qweight": words(COLUMNS, ROWS // 8), "qzeros": words(2, ROWS // 8), "scales": blocks(2, ROWS, 0.1).half()}
    plain = library.dequantize_gemm(made["qweight"], made["qzeros"], made["scales"].float(), 4, 16)
    settings = {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True, "version": "gemm"}
    return {"awq": ({**made, "=weight": plain.T.contiguous()}, settings)}


def main() -> None:
    """All cases, in one file."""
    cases = of_compressed() | of_bitsandbytes() | of_fp8() | of_awq(sys.argv[1])
    tensors = {
        f"{case}/{name}": tensor.contiguous() for case, (found, _) in cases.items() for name, tensor in found.items()
    }
    settings = {case: json.dumps(found) for case, (_, found) in cases.items()}
    save_file(tensors, Path(__file__).parent / "golden.safetensors", metadata=settings)


if __name__ == "__main__":
    main()
