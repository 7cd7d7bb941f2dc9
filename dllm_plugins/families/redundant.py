"""Tensors that say again what a checkpoint's config or another tensor says: an identical head, rotary frequencies.

They are common after tuning and merging. What agrees is left out, what does not is refused.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch import nn

from dllm_kernels.private_torch import unsaved_buffers
from dllm_plugins.errors import CheckpointError

#: Positions that embeddings of old classes count off, and rotary frequencies.
_REPEATS = re.compile(r"(.*\.)?(position_ids|\w*inv_freq)")
#: Where old classes keep the frequencies, layer by layer.
_IN_LAYERS = re.compile(r"layers\.\d+\.self_attn\.")


def repeats(name: str) -> bool:
    """Whether a tensor of this name says nothing that the config does not."""
    return _REPEATS.fullmatch(name) is not None


def without_redundant(tensors: Mapping[str, Tensor], skeleton: nn.Module, config: Any, where: str) -> dict[str, Tensor]:
    """The tensors that the class needs, each once.

    :param skeleton: the class, without weights.
    :param config: its config.
    :raises CheckpointError: for one that contradicts what it should repeat.
    """
    found = dict(tensors)
    tied: Mapping[str, str] = getattr(skeleton, "all_tied_weights_keys", None) or {}
    for name, source in tied.items():
        if name in found:
            # A head alone serves as the embedding, too.
            copy = found.pop(name)
            if not _same(copy, found.setdefault(source, copy)):
                raise CheckpointError(
                    f"{where}: {name} differs from {source}, and config.json says that they are one (by "
                    f"tie_word_embeddings, weight_tying in LLaDA's); say false there, or take {name} out"
                )
    for name in sorted(filter(repeats, found)):
        repeated = _repeated(name, found[name], skeleton, config)
        if repeated is not None and not _close(found[name], repeated):
            raise CheckpointError(f"{where}: {name} holds other numbers than follow from config.json; take it out")
        if repeated is not None:
            del found[name]
    return found


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.shape == other.shape and bool(torch.equal(one, other.to(one.dtype))))


def _close(stored: Tensor, wanted: Tensor) -> bool:
    """Equal but for the rounding of the dtype it is stored in."""
    if stored.shape != wanted.shape:
        return False
    precision = torch.finfo(stored.dtype).eps if stored.is_floating_point() else 0.0
    return bool(torch.allclose(stored.double(), wanted.double(), rtol=4 * precision, atol=0))


def _repeated(name: str, stored: Tensor, skeleton: nn.Module, config: Any) -> Tensor | None:
    """What a tensor of this name can only hold; None if it is nothing that repeats."""
    module, _, buffer = _IN_LAYERS.sub("", name).rpartition(".")
    if buffer == "position_ids" and not stored.is_floating_point():
        return torch.arange(stored.numel()).reshape(stored.shape)
    # transformers types no buffers.
    rotary: Any = dict(skeleton.named_modules()).get(module)
    if rotary is None or buffer not in unsaved_buffers(rotary):
        return None
    made = type(rotary)(config.get_text_config())
    return getattr(made, buffer, None)
