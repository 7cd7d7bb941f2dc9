"""The base model's GGUF file as a folder in the hub's format: weights dequantised to bfloat16, tokenizer, config.

It reads the one file whose SHA-256 was compared before, so it checks nothing and knows only what is in that file;
:mod:`dllm_plugins.gguf` reads files from anybody. What it writes is what transformers makes of the file, bit for bit
(tests/default_model/test_unpack.py), without the libraries that transformers needs for it.
Format: ggml-org/ggml docs/gguf.md, ggml-common.h.
"""

import json
import mmap
import struct
from collections.abc import Iterator
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dllm_plugins.files.progress import Progress
from dllm_plugins.files.progress import quiet

_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9
_F32, _Q4_1, _Q8_0 = 0, 3, 8
#: Values of a block of the quantised types.
_BLOCK = 32
_ALIGNMENT = 32
#: Kinds of tokens that no text is cut into: control tokens.
_CONTROL = 3
_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def unpack(file: Path, folder: Path, progress: Progress = quiet) -> None:
    """Write the folder.

    :param file: the GGUF file, checked.
    :param folder: made here.
    """
    from safetensors.torch import save_file

    progress("convert", 0, 3)
    folder.mkdir()
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as view:
        reader = _Reader(view)
        metadata, infos = reader.header()
        _write_tokenizer(metadata, folder)
        progress("convert", 1, 3)
        heads = {"attn_q": metadata["llama.attention.head_count"], "attn_k": metadata["llama.attention.head_count_kv"]}
        tensors = {_renamed(name): _unturned(name, tensor, heads) for name, tensor in reader.tensors(infos)}
    progress("convert", 2, 3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name, settings in (("config.json", _config(metadata)), ("generation_config.json", _ends(metadata))):
        (folder / name).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    progress("convert", 3, 3)


class _Reader:
    """A place in the file."""

    def __init__(self, view: mmap.mmap) -> None:
        self._view, self._at = view, 4

    def header(self) -> tuple[dict[str, Any], list[tuple[str, tuple[int, ...], int, int]]]:
        """The metadata; and each tensor's name, shape, type and place behind the header."""
        _version, tensors, pairs = self._number("I"), self._number("q"), self._number("q")
        metadata = {self._text(): self._value(self._number("I")) for _ in range(pairs)}
        infos = []
        for _ in range(tensors):
            name = self._text()
            shape = tuple(self._number("Q") for _ in range(self._number("I")))[::-1]
            infos.append((name, shape, self._number("I"), self._number("Q")))
        return metadata, infos

    def tensors(self, infos: list[tuple[str, tuple[int, ...], int, int]]) -> Iterator[tuple[str, Tensor]]:
        """Their values in bfloat16."""
        begin = -(-self._at // _ALIGNMENT) * _ALIGNMENT
        for name, shape, kind, place in infos:
            size = {_F32: 4 * prod(shape), _Q4_1: prod(shape) // _BLOCK * 20, _Q8_0: prod(shape) // _BLOCK * 34}[kind]
            raw = torch.frombuffer(bytearray(self._view[begin + place : begin + place + size]), dtype=torch.uint8)
            yield name, _values(raw, kind).view(shape).to(torch.bfloat16)

    def _number(self, code: str) -> Any:
        (found,) = struct.unpack_from("<" + code, self._view, self._at)
        self._at += struct.calcsize(code)
        return found

    def _text(self) -> str:
        size = self._number("Q")
        self._at += size
        return self._view[self._at - size : self._at].decode("utf-8")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            inner, count = self._number("I"), self._number("Q")
            return [self._value(inner) for _ in range(count)]
        return self._number(_SCALARS[kind])


def _values(raw: Tensor, kind: int) -> Tensor:
    """Float32 values of a tensor's bytes: blocks are a scale, Q4_1's also a least value, and small numbers."""
    if kind == _F32:
        return raw.view(torch.float32)
    blocks = raw.view(-1, 20 if kind == _Q4_1 else 34)
    scale = blocks[:, :2].contiguous().view(torch.float16).float()
    if kind == _Q8_0:
        return blocks[:, 2:].contiguous().view(torch.int8).float() * scale
    least = blocks[:, 2:4].contiguous().view(torch.float16).float()
    # Two numbers a byte: the lower halves are the block's first ones.
    numbers = torch.cat([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], dim=1)
    return numbers.float() * scale + least


def _renamed(name: str) -> str:
    stem, _, last = name.rpartition(".")
    if stem in _OUTSIDE:
        return f"{_OUTSIDE[stem]}.{last}"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{_NAMES[part]}.{last}"


def _unturned(name: str, tensor: Tensor, heads: Mapping[str, int]) -> Tensor:
    """llama.cpp rotates neighbours, the hub's Llama halves of a head: rows of queries and keys stand otherwise."""
    count = heads.get(name.split(".")[-2])
    if count is None:
        return tensor
    rows, width = tensor.shape
    return tensor.view(count, rows // count // 2, 2, width).transpose(1, 2).reshape(rows, width).contiguous()


def _ends(metadata: Mapping[str, Any]) -> dict[str, int]:
    names = {"bos": "bos", "eos": "eos", "pad": "padding"}
    return {f"{name}_token_id": metadata[f"tokenizer.ggml.{key}_token_id"] for name, key in names.items()}


def _config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    llama = {key.removeprefix("llama."): value for key, value in metadata.items() if key.startswith("llama.")}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "vocab_size": llama["vocab_size"],
        "hidden_size": llama["embedding_length"],
        "intermediate_size": llama["feed_forward_length"],
        "num_hidden_layers": llama["block_count"],
        "num_attention_heads": llama["attention.head_count"],
        "num_key_value_heads": llama["attention.head_count_kv"],
        "head_dim": llama["rope.dimension_count"],
        "max_position_embeddings": llama["context_length"],
        "rms_norm_eps": llama["attention.layer_norm_rms_epsilon"],
        "rope_parameters": {"rope_theta": llama["rope.freq_base"], "rope_type": "default"},
        **_ends(metadata),
    }


def _write_tokenizer(metadata: Mapping[str, Any], folder: Path) -> None:
    """As transformers reads it: without the rule that digits are words of their own, which the denoiser never saw."""
    from tokenizers import AddedToken
    from tokenizers import Tokenizer
    from tokenizers import decoders
    from tokenizers import models
    from tokenizers import pre_tokenizers
    from tokenizers import processors

    tokens, kinds = (metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type"))
    pairs = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    found = Tokenizer(models.BPE(vocabulary, pairs, continuing_subword_prefix="", end_of_word_suffix=""))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    found.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    found.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    found.save(str(folder / "tokenizer.json"))
    names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    settings = {f"{name}_token": tokens[metadata[f"tokenizer.ggml.{key}_token_id"]] for name, key in names.items()}
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(metadata["tokenizer.chat_template"], encoding="utf-8")
