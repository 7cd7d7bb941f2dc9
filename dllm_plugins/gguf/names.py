"""A checkpoint's tensors under llama.cpp's names and in its order of rows."""

import re
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dllm_plugins.errors import CheckpointError
from dllm_plugins.gguf.architectures import Architecture
from dllm_plugins.messages import message

_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_EXPERT = re.compile(r"mlp\.experts\.(\d+)\.(gate|up|down)_proj\.weight")
OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_FUSED = ("attn_q.weight", "attn_k.weight", "attn_v.weight")


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of the file; `make` reads and arranges it when it is its turn."""

    name: str
    shape: tuple[int, ...]
    make: Callable[[], Tensor]

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> "TensorEntry":
        """A tensor as it is."""
        return cls(name, tuple(tensor.shape), lambda: tensor)

    @property
    def exact(self) -> bool:
        """Whether it stays float32 in every file: vectors, and routers as llama.cpp's own converter keeps them."""
        return len(self.shape) == 1 or self.name.endswith("ffn_gate_inp.weight")


def arrange(stored: Mapping[str, Tensor], config: Any, found: Architecture) -> list[TensorEntry]:
    """All tensors of a file, in layer order; nothing is read yet.

    :param stored: by the names of transformers' class; experts stacked or one by one.
    :param config: of transformers' class.
    :raises CheckpointError: for a tensor that the graph has no place for.
    """
    layers: dict[int, dict[str, Tensor]] = {}
    entries = []
    for name, tensor in stored.items():
        inside = _LAYER.fullmatch(name)
        if inside:
            layers.setdefault(int(inside[1]), {})[inside[2]] = tensor
        elif name in OUTSIDE:
            entries.append(TensorEntry.of(OUTSIDE[name], tensor))
        else:
            _refuse(name, found)
    if found.own_head and "lm_head.weight" not in stored:
        entries.append(TensorEntry.of("output.weight", stored["model.embed_tokens.weight"]))
    for index in sorted(layers):
        entries += _layer(f"blk.{index}.", layers[index], config, found)
    return entries


def _refuse(name: str, found: Architecture) -> None:
    raise CheckpointError(
        message(
            "tensor {!r} has no place in llama.cpp's {!r}, which would leave it out; use {backend}='torch'",
            name,
            found.name,
        )
    )


def _layer(prefix: str, tensors: Mapping[str, Tensor], config: Any, found: Architecture) -> list[TensorEntry]:
    plain: dict[str, Tensor] = {}
    experts: dict[str, dict[int, Tensor]] = {}
    for name, tensor in tensors.items():
        one = _EXPERT.fullmatch(name)
        if one and f"mlp.experts.{one[2]}_proj" in found.layer:
            experts.setdefault(f"mlp.experts.{one[2]}_proj", {})[int(one[1])] = tensor
        elif name == "mlp.experts.gate_up_proj" and "mlp.experts.gate_proj" in found.layer:
            plain["mlp.experts.gate_proj"], plain["mlp.experts.up_proj"] = tensor.chunk(2, dim=1)
        elif name in found.layer:
            plain[name] = tensor
        else:
            _refuse(name, found)
    entries = {}
    for name, tensor in plain.items():
        rows = heads_of(name, config) if found.permuted else 0
        entry = TensorEntry.of(prefix + found.layer[name], tensor)
        entries[found.layer[name]] = replace(entry, make=partial(paired, tensor, rows)) if rows else entry
    for name, parts in experts.items():
        shape = (len(parts), *parts[0].shape)
        make = partial(torch.stack, [parts[index] for index in sorted(parts)])
        entries[found.layer[name]] = TensorEntry(prefix + found.layer[name], shape, make)
    return list(_joined(prefix, entries) if found.fused else entries.values())


def _joined(prefix: str, entries: dict[str, TensorEntry]) -> Iterator[TensorEntry]:
    """Query, key and value in one."""
    parts = [entries.pop(name) for name in _FUSED]
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    yield TensorEntry(prefix + "attn_qkv.weight", shape, lambda: torch.cat([part.make() for part in parts]))
    yield from entries.values()


def foreign(names: Iterable[str], layer: Collection[str]) -> list[str]:
    """Those of a file's tensors that are neither outside the layers nor one of `layer`."""
    outside = OUTSIDE.values()
    return [
        name
        for name in names
        if name not in outside and not (name.startswith("blk.") and name.split(".", 2)[-1] in layer)
    ]


def heads_of(name: str, config: Any) -> int:
    """Heads of a query or key projection of a layer, 0 for any other tensor."""
    heads = {"self_attn.q_proj.": config.num_attention_heads, "self_attn.k_proj.": config.num_key_value_heads}
    return next((count for part, count in heads.items() if part in name), 0)


def paired(tensor: Tensor, heads: int) -> Tensor:
    """Rows from halves of a head, as transformers rotates them, to neighbouring pairs."""
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def unpaired(tensor: Tensor, heads: int) -> Tensor:
    """Rows from neighbouring pairs to halves of a head: what :func:`paired` did, undone."""
    pairs = tensor.reshape(heads, tensor.shape[0] // heads // 2, 2, *tensor.shape[1:])
    return pairs.transpose(1, 2).reshape(tensor.shape)


def native_name(name: str, found: Architecture) -> str | None:
    """What transformers' class calls a tensor of a file; None for one that it has not."""
    inside = re.fullmatch(r"blk\.(\d+)\.(.+)", name)
    if inside is None:
        return next((native for native, own in OUTSIDE.items() if own == name), None)
    part = next((native for native, own in found.layer.items() if own == inside[2]), None)
    return None if part is None else f"model.layers.{inside[1]}.{part}"
