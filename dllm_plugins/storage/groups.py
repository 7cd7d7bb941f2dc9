"""GPTQ and AWQ: integers of few bits in words of 32, with a scale and a zero point a group of inputs.

Layouts: AutoGPTQ 179776b `auto_gptq/nn_modules/qlinear/qlinear_cuda_old.py`; for GPTQ's second format, which
no longer takes one off the zero points, gptqmodel's `convert_gptq_v1_to_v2_format_module`; autoawq 0.2.9
`awq/utils/packing_utils.py`.
A weight is (number - zero point) * scale, transposed.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dllm_plugins.storage.bits import unpack
from dllm_plugins.storage.lazy import LazyWeight
from dllm_plugins.storage.lazy import in_steps
from dllm_plugins.storage.scaled import Tensors
from dllm_plugins.storage.settings import Storage

PARTS = ("qweight", "qzeros", "scales", "g_idx")
#: Where each of eight neighbouring columns stands in AWQ's words.
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)


def read_gptq(tensors: Tensors, storage: Storage) -> Tensors:
    """GPTQ of 2, 4 or 8 bits, in both of its formats.

    :raises CheckpointError: for other widths and formats, and tensors of other shapes.
    """
    settings = storage.settings
    bits = settings.get("bits")
    form = settings.get("checkpoint_format", settings.get("format", "gptq"))
    if bits not in (2, 4, 8) or form not in ("gptq", "gptq_v2") or settings.get("is_marlin_format"):
        raise storage.refusal(f"bits={bits!r} in format {form!r}; read are 2, 4 and 8 bits in 'gptq' and 'gptq_v2'")
    each, taken = 32 // bits, form == "gptq"

    def weight(name: str, parts: Tensors) -> LazyWeight:
        words, zeros, scales = (parts[part] for part in PARTS[:3])
        inputs, outputs = words.shape[0] * each, words.shape[1]
        if scales.shape[1] != outputs or tuple(zeros.shape) != (scales.shape[0], -(-outputs // each)):
            raise storage.refusal(f"{name}: scales {tuple(scales.shape)} of words {tuple(words.shape)}")
        zero = unpack(zeros, bits)[:, :outputs]
        if taken and bool((zero == (1 << bits) - 1).any()):
            raise storage.refusal(f"{name} has zero points that its tools read in two ways")
        group = _groups(name, parts.get("g_idx"), inputs, len(scales), storage)
        return _grouped(
            (outputs, inputs),
            lambda start, stop: unpack(words[:, start:stop].T.contiguous(), bits),
            (zero + int(taken)).T,
            scales.T,
            group,
        )

    return _replaced(tensors, storage, weight)


def read_awq(tensors: Tensors, storage: Storage) -> Tensors:
    """AWQ of 4 bits as its "gemm" version writes it.

    :raises CheckpointError: for other widths and versions, and tensors of other shapes.
    """
    settings = storage.settings
    bits = settings.get("bits", settings.get("w_bit"))
    version = str(settings.get("version", settings.get("format", "gemm"))).lower()
    if bits != 4 or version != "gemm" or settings.get("zero_point") is not True:
        raise storage.refusal(
            f"bits={bits!r}, version={version!r}, zero_point={settings.get('zero_point')!r}; read are 4 bits of "
            f"version 'gemm' with zero points"
        )

    def weight(name: str, parts: Tensors) -> LazyWeight:
        words, zeros, scales = (parts[part] for part in PARTS[:3])
        inputs, outputs = words.shape[0], words.shape[1] * 8
        if tuple(scales.shape) != (len(zeros), outputs) or zeros.shape[1] != words.shape[1]:
            raise storage.refusal(f"{name}: scales {tuple(scales.shape)} of words {tuple(words.shape)}")

        def numbers(start: int, stop: int) -> Tensor:
            first = start // 8
            return _ordered(words[:, first : -(-stop // 8)])[:, start - 8 * first : stop - 8 * first].T

        return _grouped(
            (outputs, inputs),
            numbers,
            _ordered(zeros).T,
            scales.T,
            _groups(name, None, inputs, len(scales), storage),
        )

    return _replaced(tensors, storage, weight)


def _ordered(words: Tensor) -> Tensor:
    found: Tensor = unpack(words, 4).unflatten(-1, (-1, 8))[..., list(AWQ_ORDER)].flatten(-2)
    return found


def _groups(name: str, given: Tensor | None, inputs: int, count: int, storage: Storage) -> Tensor:
    """The group of every input, int64 [inputs].

    :raises CheckpointError: if they do not fit the scales.
    """
    size = storage.settings.get("group_size", storage.settings.get("q_group_size"))
    size = inputs if size in (-1, None) else size
    if given is not None and given.numel():
        group = given.long().reshape(-1)
    elif isinstance(size, int) and size > 0:
        group = torch.arange(inputs) // size
    else:
        raise storage.refusal(f"group_size={size!r}")
    if len(group) != inputs or int(group.min()) < 0 or int(group.max()) != count - 1:
        raise storage.refusal(f"{name} has {count} groups of scales, which {inputs} inputs in groups of {size} do not")
    return group


def _grouped(
    shape: tuple[int, int], numbers: Callable[[int, int], Tensor], zero: Tensor, scale: Tensor, group: Tensor
) -> LazyWeight:
    """A weight [outputs, inputs].

    :param numbers: stored numbers of some outputs, [outputs, inputs].
    :param zero, scale: [outputs, groups].
    """

    def fill(part: Tensor, first: int, last: int) -> None:
        part.copy_(numbers(first, last))
        part -= zero[first:last].float()[:, group]
        part *= scale[first:last].float()[:, group]

    return LazyWeight(shape, lambda start, stop: in_steps(shape[1], start, stop, fill))


def _replaced(tensors: Tensors, storage: Storage, weight: Callable[[str, Tensors], LazyWeight]) -> Tensors:
    """A weight in the place of the parts of every module that has them.

    :raises CheckpointError: for parts that are missing or of other dtypes.
    """
    found: Tensors = {}
    for name, tensor in tensors.items():
        module, _, last = name.rpartition(".")
        if f"{module}.qweight" not in tensors or last not in PARTS:
            found[name] = tensor
        elif last == "qweight":
            parts = {part: tensors[f"{module}.{part}"] for part in PARTS if f"{module}.{part}" in tensors}
            kinds = {parts[part].dtype for part in PARTS[:2] if part in parts}
            if len(parts.keys() & set(PARTS[:3])) < 3 or kinds != {torch.int32} or tensor.ndim != 2:
                raise storage.refusal(f"{module} has {', '.join(parts)} as {', '.join(map(str, kinds))}")
            found[f"{module}.weight"] = weight(module, parts)
    return found
