"""What torch does not promise to keep, each in one place. A test says which of them a new torch has changed."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch import nn

#: What torch raises where it lacks an operator, or has another one of that name.
MISSING = (AttributeError, NotImplementedError, RuntimeError, TypeError)
#: The `__torch_function__` of a class whose operations are told apart in `__torch_dispatch__` only.
NO_TORCH_FUNCTION: Any = torch._C._disabled_torch_function_impl


def int8_product(levels: Tensor, values: Tensor) -> Tensor:
    """Int8 [N, in] by [in, out], summed in int32 [N, out]; one of :data:`MISSING` is raised without the operator."""
    found: Tensor = torch._int_mm(levels, values)
    return found


def ordered_weight(weight: Tensor, rows: int) -> Tensor:
    """A weight [out, in] in oneDNN's order for `rows` rows; one of :data:`MISSING` is raised without the operator."""
    found: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return found


def ordered_linear(x: Tensor, ordered: Tensor, bias: Tensor | None) -> Tensor:
    """Rows [N, in] to [N, out], in the dtype of x, with a weight of :func:`ordered_weight`."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, ordered, bias, "none", [], "")
    return found


def onednn_multiplies_bfloat16() -> bool:
    """Whether oneDNN has products in bfloat16 for this processor."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_avx512_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; False where torch cannot tell."""
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe()) if probe is not None else False


def without_storage(kind: type[Tensor], shape: tuple[int, ...]) -> Any:
    """A float32 tensor of a class of one's own on the CPU, with a shape and no numbers."""
    make: Any = torch.Tensor._make_wrapper_subclass
    return make(kind, shape, dtype=torch.float32, device="cpu")


def is_conversion(function: Any) -> bool:
    """Whether an operation of `__torch_dispatch__` is `Tensor.to`."""
    return function is torch.ops.aten._to_copy.default


def mapped(kind: type[Any], change: Callable[[Any], Any], tree: Any) -> Any:
    """Nested tuples, lists and dicts with every object of a class changed."""
    from torch.utils._pytree import tree_map_only

    return tree_map_only(kind, change, tree)


def unsaved_buffers(module: nn.Module) -> frozenset[str]:
    """Names of the buffers that a state dict leaves out."""
    return frozenset(module._non_persistent_buffers_set)


def each_length_its_own() -> AbstractContextManager[Any]:
    """While tracing, lengths that happen to be equal are not taken for the same one."""
    from torch.fx.experimental import _config

    # PyTorch adds its methods when it is imported, unseen by type checkers.
    shapes: Any = _config
    found: AbstractContextManager[Any] = shapes.patch(use_duck_shape=False)
    return found


def missing_compiler() -> str | None:
    """The C++ compilers that inductor looked for in vain; None if it has found one."""
    from torch._inductor import config
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError):
        named = config.cpp.cxx if isinstance(config.cpp.cxx, tuple | list) else (config.cpp.cxx,)
        return ", ".join(str(name) for name in named if name)
    return None
