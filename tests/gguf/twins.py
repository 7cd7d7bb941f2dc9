"""What a GGUF file says, dequantised by GGUF's own library into bfloat16 checkpoints of the hub's format."""

import json
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import save_file
from torch import Tensor

from dllm_plugins.families.layouts import layout_of

from .checkpoints import KINDS
from .own_layouts import OWN
from .own_layouts import same

_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_PARTS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    **{f"attn_{part}": f"self_attn.{part}_proj" for part in "qkv"},
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    **{f"ffn_{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")},
}


def dequantised(path: Path, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    """All tensors of a file by the names of transformers' classes, rows of queries and keys in their order."""
    reader = gguf.GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    heads = {
        "attn_q": reader.fields[f"{architecture}.attention.head_count"].contents(),
        "attn_k": reader.fields[f"{architecture}.attention.head_count_kv"].contents(),
    }
    found = {}
    for tensor in reader.tensors:
        stem, _, last = tensor.name.rpartition(".")
        values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
        if stem in _OUTSIDE:
            found[f"{_OUTSIDE[stem]}.{last}"] = values.to(dtype)
        elif stem.startswith("blk."):
            _, layer, part = stem.split(".")
            if architecture in ("llama", "llada") and part in heads:
                values = values.view(heads[part], -1, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
            found[f"model.layers.{layer}.{_PARTS[part]}.{last}"] = values.to(dtype)
    return found


def twin(path: Path, folder: Path, name: str, dtype: torch.dtype = torch.bfloat16) -> Path:
    """The folder of a file's dequantised checkpoint; `name` is that of its kind."""
    config: dict[str, Any] = json.loads(gguf.GGUFReader(path).fields["dllm.config"].contents())
    layout = layout_of(config, name, KINDS[name].family)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    own = OWN.get(layout.name, same)(dequantised(path, dtype))
    save_file({key: tensor.contiguous() for key, tensor in own.items()}, folder / "model.safetensors")
    return folder


def foreign(
    path: Path, out: Path, without: tuple[str, ...] = (), more: dict[str, Any] | None = None, alignment: int = 32
) -> Path:
    """The same file as llama.cpp's own converter writes it: without our keys.

    :param without: other keys to leave out.
    :param more: numbers and texts to say besides, or in place of the file's.
    :param alignment: what tensors begin at multiples of.
    """
    reader, more = gguf.GGUFReader(path), more or {}
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    writer.add_custom_alignment(alignment)
    for field in reader.fields.values():
        ours = field.name.startswith(("GGUF.", "dllm.", "general.architecture"))
        if not ours and field.name not in {*without, *more}:
            kind = field.types[0]
            writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if len(field.types) > 1 else None)
    for key, value in more.items():
        kinds = {int: gguf.GGUFValueType.UINT32, float: gguf.GGUFValueType.FLOAT32, str: gguf.GGUFValueType.STRING}
        writer.add_key_value(key, value, kinds[type(value)])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out
