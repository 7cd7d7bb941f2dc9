"""Each interface that torch does not promise still does what is needed of it; the name of a test says which broke."""

import torch
from torch import Tensor
from torch import nn

from dllm_kernels import private_torch


def test_int8_products_are_exact() -> None:
    """torch._int_mm; small numbers, which no processor saturates at."""
    levels = torch.randint(-8, 9, (32, 64), dtype=torch.int8)
    values = torch.randint(-8, 9, (64, 16), dtype=torch.int8)
    found = private_torch.int8_product(levels, values)
    assert found.dtype == torch.int32
    assert torch.equal(found.double(), levels.double() @ values.double())


def test_onednn_orders_a_weight_and_multiplies_by_it() -> None:
    """torch.ops.mkldnn._reorder_linear_weight and _linear_pointwise."""
    weight, x, bias = torch.randn(48, 40), torch.randn(16, 40), torch.randn(48)
    with torch.inference_mode():
        found = private_torch.ordered_linear(x, private_torch.ordered_weight(weight, 16), bias)
    torch.testing.assert_close(found, nn.functional.linear(x, weight, bias))


def test_processors_are_known() -> None:
    """torch.ops.mkldnn._is_mkldnn_bf16_supported and torch.cpu._is_avx512_bf16_supported are there and answer."""
    assert hasattr(torch.cpu, "_is_avx512_bf16_supported")
    assert private_torch.has_avx512_bfloat16() in (True, False)
    assert private_torch.onednn_multiplies_bfloat16() in (True, False)


class _Hollow(Tensor):
    """A tensor without numbers, which notes what it was asked for."""

    __torch_function__ = private_torch.NO_TORCH_FUNCTION
    seen: list[bool]

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def, override]  # noqa: ANN001, ANN206
        args[0].seen.append(private_torch.is_conversion(func))
        return torch.zeros(args[0].shape)


def test_tensors_of_a_class_of_our_own() -> None:
    """torch.Tensor._make_wrapper_subclass, torch._C._disabled_torch_function_impl and torch.ops.aten._to_copy."""
    hollow = private_torch.without_storage(_Hollow, (3, 5))
    hollow.seen = []
    assert isinstance(hollow, _Hollow)
    assert (tuple(hollow.shape), hollow.dtype) == ((3, 5), torch.float32)
    hollow.to(torch.bfloat16)
    hollow.abs()
    assert hollow.seen == [True, False]


def test_nested_values_are_changed() -> None:
    """torch.utils._pytree.tree_map_only."""
    found = private_torch.mapped(int, str, (1, [2.0, 3], {"four": 4}))
    assert found == ("1", [2.0, "3"], {"four": "4"})


def test_buffers_that_are_not_saved() -> None:
    """nn.Module._non_persistent_buffers_set."""
    module = nn.Module()
    module.register_buffer("kept", torch.zeros(1))
    module.register_buffer("made", torch.zeros(1), persistent=False)
    assert private_torch.unsaved_buffers(module) == {"made"}


def test_equal_lengths_are_not_taken_for_one() -> None:
    """torch.fx.experimental._config.patch(use_duck_shape=False)."""
    from torch.fx.experimental import _config

    assert _config.use_duck_shape
    with private_torch.each_length_its_own():
        assert not _config.use_duck_shape


def test_a_missing_compiler_is_told() -> None:
    """torch._inductor.cpp_builder.get_cpp_compiler, exc.InvalidCxxCompiler and config.cpp.cxx."""
    from torch._inductor import config

    with config.patch({"cpp.cxx": ("no-such-compiler",)}):
        assert private_torch.missing_compiler() == "no-such-compiler"
