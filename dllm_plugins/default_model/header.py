"""What the base model's GGUF file says of itself, read without anything that computes."""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm_plugins.default_model import base_model
from dllm_plugins.files.reading import reading
from dllm_plugins.files.replacing import read_config

#: What mends a damaged file.
AGAIN = "run `python -m dllm_plugins setup --force` to fetch it again"
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor, its type by ggml's number, and its place behind the header."""

    name: str
    shape: tuple[int, ...]
    kind: int
    place: int


class HeaderReader:
    """A place in the file.

    :param words: whether to read lists of strings, too.
    """

    def __init__(self, view: mmap.mmap, words: bool = False) -> None:
        self._view, self._words = view, words
        #: Where the next thing is that is read.
        self.end = 4

    def read(self) -> tuple[dict[str, Any], list[StoredTensor]]:
        """What is said of the model, and of each tensor."""
        _version, tensors, pairs = self._number("I"), self._number("q"), self._number("q")
        metadata = {self._text(): self._value(self._number("I")) for _ in range(pairs)}
        infos = []
        for _ in range(tensors):
            name = self._text()
            shape = tuple(self._number("Q") for _ in range(self._number("I")))[::-1]
            infos.append(StoredTensor(name, shape, self._number("I"), self._number("Q")))
        return metadata, infos

    def _number(self, code: str) -> Any:
        (found,) = struct.unpack_from("<" + code, self._view, self.end)
        self.end += struct.calcsize(code)
        return found

    def _text(self) -> str:
        begin = self.end + 8
        self.end = begin + _LENGTH.unpack_from(self._view, self.end)[0]
        return self._view[begin : self.end].decode("utf-8")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        return self._list(self._number("I"), self._number("Q")) if kind == _ARRAY else self._number(_SCALARS[kind])

    def _list(self, kind: int, count: int) -> list[Any]:
        if kind != _STRING:
            found = struct.unpack_from(f"<{count}{_SCALARS[kind]}", self._view, self.end)
            self.end += count * struct.calcsize(_SCALARS[kind])
            return list(found)
        if count > len(self._view) // 8:
            raise ValueError(f"it claims a list of {count} strings")
        if self._words:
            return [self._text() for _ in range(count)]
        # A hundred thousand times: nothing here but what finds the next one.
        view, at, number = self._view, self.end, _LENGTH.unpack_from
        for _ in range(count):
            at += 8 + number(view, at)[0]
        self.end = at
        return []


def ends_of(metadata: Mapping[str, Any]) -> dict[str, int]:
    """Special tokens by the names that configs give them."""
    names = {"bos": "bos", "eos": "eos", "pad": "padding"}
    return {f"{name}_token_id": metadata[f"tokenizer.ggml.{key}_token_id"] for name, key in names.items()}


def config_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json says."""
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
        **ends_of(metadata),
    }


def base_config(base: Path | None) -> Mapping[str, Any]:
    """config.json of the default model's base, or what its file says in place of that.

    :param base: a folder; None for the default one.
    :raises DownloadError: if the default was never set up.
    :raises CheckpointError: if it is damaged.
    """
    place = base or base_model.require_place()
    if place.is_dir():
        return read_config(place)
    with reading(place, AGAIN), place.open("rb") as opened:
        metadata, _ = HeaderReader(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)).read()
        return config_of(metadata)
