"""Stored weights come out as the projects that store them make them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from dllm_plugins.errors import CheckpointError
from dllm_plugins.storage import Storage
from dllm_plugins.storage import plain_tensors
from dllm_plugins.storage.lazy import LazyWeight

PLACE = Path(__file__).parent / "golden.safetensors"


def recorded() -> dict[str, tuple[dict[str, Any], dict[str, Tensor]]]:
    """Settings and tensors of every case; what is expected is called `=weight`."""
    with safe_open(PLACE, framework="pt") as file:
        cases: dict[str, tuple[dict[str, Any], dict[str, Tensor]]] = {
            case: (json.loads(settings), {}) for case, settings in file.metadata().items()
        }
        for name in file.keys():  # noqa: SIM118
            case, _, rest = name.partition("/")
            cases[case][1][rest] = file.get_tensor(name)
    return cases


CASES = recorded()


def stored(case: str) -> tuple[Storage, dict[str, Tensor], Tensor]:
    """How a case is stored, its tensors, and the weight they mean."""
    settings, tensors = CASES[case]
    given = {f"model.layers.0.up.{name}": tensor for name, tensor in tensors.items() if name != "=weight"}
    given["model.norm.weight"] = torch.ones(8)
    if settings["quant_method"] in ("fp8", "compressed-tensors"):
        given["model.layers.0.up.input_scale"] = torch.ones(1)
    return Storage(settings["quant_method"], settings, "config.json"), given, tensors["=weight"]


@pytest.mark.parametrize("case", sorted(CASES))
@pytest.mark.parametrize("step", [5, 1024])
def test_as_its_own_project(case: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left over but plain weights; whole, a few rows at a time, or any rows of it."""
    monkeypatch.setattr("dllm_plugins.storage.lazy.STEP", step)
    storage, given, expected = stored(case)
    found = plain_tensors(given, storage)
    assert sorted(found) == ["model.layers.0.up.weight", "model.norm.weight"]
    weight = found["model.layers.0.up.weight"]
    assert isinstance(weight, LazyWeight)
    assert weight.shape == expected.shape
    torch.testing.assert_close(weight[...], expected.float(), rtol=2e-7, atol=0)
    parts = torch.cat([part[...] for part in torch.split(weight, [7, 16, 1])])
    assert torch.equal(parts, weight.whole())


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("form", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("ordered", [True, False])
def test_gptq(bits: int, form: str, ordered: bool) -> None:
    """Packed here as AutoGPTQ packs: inputs into words along the first dimension, zero points along the last."""
    random = torch.Generator().manual_seed(bits)
    numbers = torch.randint(0, 1 << bits, (32, 16), generator=random)
    zeros = torch.randint(1, (1 << bits) - 1, (4, 16), generator=random)
    scales = torch.rand(4, 16, generator=random)
    group = torch.arange(32) // 8 if ordered else torch.arange(32)[torch.randperm(32, generator=random)] // 8
    expected = ((numbers - zeros[group]) * scales[group]).T

    def packed(values: Tensor) -> Tensor:
        words = torch.zeros(len(values) * bits // 32, values.shape[1], dtype=torch.int64)
        for index, row in enumerate(values):
            words[index * bits // 32] |= row << (index * bits % 32)
        return words.to(torch.int32)

    given = {
        "a.qweight": packed(numbers),
        "a.qzeros": packed((zeros - int(form == "gptq")).T).T,
        "a.scales": scales,
        "a.bias": torch.ones(16),
    }
    if not ordered:
        given["a.g_idx"] = group.int()
    settings = {"bits": bits, "group_size": 8, "checkpoint_format": form}
    found = plain_tensors(given, Storage("gptq", settings, "config.json"))
    assert sorted(found) == ["a.bias", "a.weight"]
    torch.testing.assert_close(found["a.weight"][...], expected, rtol=1e-6, atol=0)


BLOCKS = {"weight_block_size": [2, 2]}
EIGHT = torch.ones(4, 4).to(torch.float8_e4m3fn)


@pytest.mark.parametrize(
    ("method", "settings", "tensors", "words"),
    [
        ("torchao", {}, {}, "'torchao'.*unquantised weights"),
        ("hqq", {}, {}, "'hqq'"),
        ("mlx", {"bits": 4, "group_size": 64}, {}, "'mlx'"),
        ("fp8", BLOCKS, {"a.weight": EIGHT}, "a.weight is float8_e4m3fn and has no scale"),
        ("fp8", BLOCKS, {"a.weight": EIGHT, "a.weight_scale_inv": torch.ones(3, 2)}, r"scales \(3, 2\)"),
        ("fp8", {"weight_block_size": 7}, {"a.weight": EIGHT, "a.weight_scale_inv": torch.ones(2, 2)}, "blocks 7"),
        ("fp8", BLOCKS, {"a.weight": torch.ones(4, 4), "a.weight_scale_inv": torch.ones(2, 2)}, "float32 and has a"),
        ("fp8", {"expert_dtype": "fp4"}, {}, "experts are 'fp4'"),
        ("fp8", BLOCKS, {"a.weight": torch.ones(4, 4)}, "but none is"),
        ("modelopt", {"quant_algo": "NVFP4"}, {}, "quant_algo='NVFP4'"),
        ("gptq", {"bits": 3}, {}, "bits=3"),
        ("gptq", {"bits": 4, "checkpoint_format": "marlin"}, {}, "'marlin'"),
        ("gptq", {"bits": 4}, {"a.qweight": torch.zeros(4, 8, dtype=torch.int32)}, "a has qweight as"),
        ("awq", {"bits": 4, "version": "gemv", "zero_point": True}, {}, "version='gemv'"),
        ("bitsandbytes", {}, {"a.weight": EIGHT.view(torch.int8), "a.SCB": torch.ones(3)}, "with 3 scales"),
        ("bitsandbytes", {}, {"a.weight": EIGHT.view(torch.uint8)}, "but none is"),
        ("compressed-tensors", {"format": "nvfp4-pack-quantized", "config_groups": {"g": {}}}, {}, "nvfp4"),
        ("compressed-tensors", {"format": "int-quantized", "config_groups": {"g": {}}}, {}, "quantization_status=None"),
        ("compressed-tensors", {"format": "int-quantized"}, {}, "config_groups=None"),
    ],
)
def test_what_is_not_read_is_refused(
    method: str, settings: dict[str, Any], tensors: dict[str, Tensor], words: str
) -> None:
    """By name, with what to use instead; nothing is guessed."""
    with pytest.raises(CheckpointError, match=words):
        plain_tensors(tensors, Storage(method, settings, "config.json"))


def test_zero_points_that_tools_read_in_two_ways() -> None:
    """The largest stored zero point of GPTQ's first format becomes none or too large, by the tool."""
    given = {"a.qweight": torch.zeros(4, 8, dtype=torch.int32), "a.qzeros": torch.full((1, 1), -1, dtype=torch.int32)}
    given["a.scales"] = torch.ones(1, 8)
    with pytest.raises(CheckpointError, match="two ways"):
        plain_tensors(given, Storage("gptq", {"bits": 4, "group_size": -1}, "config.json"))


def test_a_stack_of_experts() -> None:
    """As transformers saves them in FP8: one tensor of all experts, with a grid of scales each."""
    stack = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0)).to(torch.float8_e4m3fn)
    scale = torch.rand(3, 3, 2, generator=torch.Generator().manual_seed(1))
    given = {"experts.gate_up_proj": stack, "experts.gate_up_proj_scale_inv": scale}
    settings = {"weight_block_size": [2, 4]}
    (found,) = plain_tensors(given, Storage("fp8", settings, "config.json")).values()
    wide = scale.repeat_interleave(2, 1).repeat_interleave(4, 2)
    assert torch.equal(found[...], stack.float() * wide)


def test_modelopt_and_fbgemm() -> None:
    """One scale a tensor, or a row."""
    for method, settings, scale in (
        ("modelopt", {"quant_algo": "FP8"}, torch.tensor(0.5)),
        ("modelopt", {"quant_algo": "fp8_per_channel_per_token"}, torch.arange(1.0, 5.0)),
        ("fbgemm-fp8", {}, torch.arange(1.0, 5.0)[:, None]),
    ):
        given = {
            "a.weight": EIGHT,
            "a.weight_scale": scale,
            "a.input_scale": torch.ones(()),
            "a.k_scale": torch.ones(1),
        }
        (found,) = plain_tensors(given, Storage(method, settings, "config.json")).values()
        assert torch.equal(found[...], EIGHT.float() * scale.reshape(-1, 1))
