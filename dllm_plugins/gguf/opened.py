"""A GGUF file as a checkpoint: its family, its config, and what its sampler needs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dllm_plugins.errors import CheckpointError
from dllm_plugins.families.checkpoint import Checkpoint
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layouts import LAYOUTS
from dllm_plugins.families.layouts import layout_named
from dllm_plugins.families.layouts import layout_of
from dllm_plugins.files.limits import CONTEXT
from dllm_plugins.files.limits import check_numbers
from dllm_plugins.files.limits import whole
from dllm_plugins.files.reading import parse_json
from dllm_plugins.files.reading import reading
from dllm_plugins.gguf.architectures import ARCHITECTURES
from dllm_plugins.gguf.header import Header
from dllm_plugins.gguf.header import read_header
from dllm_plugins.gguf.keys import config_of
from dllm_plugins.libraries.classes import transformers_class
from dllm_plugins.messages import message

#: Ids that end an answer, where no generation config came along.
ENDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
#: Ids of config.json, by their keys in files that others converted.
IDS = {
    "mask_token_id": "tokenizer.ggml.mask_token_id",
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "pad_token_id": "tokenizer.ggml.padding_token_id",
}
_AGAIN = "convert the checkpoint again"


@dataclass(frozen=True)
class GgufCheckpoint(Checkpoint):
    """A checked file; `folder` is the file itself.

    :param header: what the file says of itself.
    """

    header: Header

    @property
    def ours(self) -> bool:
        """Whether our converter wrote it, with the checkpoint's own config in it."""
        return "dllm.config" in self.header.metadata

    @property
    def native(self) -> Any:
        """The class of transformers that computes it."""
        if self.ours:
            return self.layout.native(self.config)
        return transformers_class(f"{ARCHITECTURES[self.header.architecture].computes}ForCausalLM")

    @cached_property
    def native_config(self) -> Any:
        """The config of that class; of a file that others converted it says what the file's keys say.

        :raises CheckpointError: for values that the family or the class refuses.
        :raises OptionError: for keys of a file of others that only llama.cpp is known to honour.
        """
        if self.ours:
            return super().native_config
        with reading(self.folder, _AGAIN):
            return self.native.config_class(**config_of(self.header))

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return super().vocabulary if self.ours else self.header.tensors["token_embd.weight"].shape[0]

    @property
    def context(self) -> int:
        """How many positions it was made for."""
        if self.ours:
            return super().context
        return whole(self.header.value("context_length"), "context_length", str(self.folder), 1, CONTEXT)

    @cached_property
    def generation(self) -> dict[str, Any]:
        """generation_config.json, as the converter found it; for other files the ids that end an answer.

        :raises CheckpointError: if it cannot be read.
        """
        if self.ours:
            return _read(self.header, "dllm.generation_config")
        return {"eos_token_id": [self.header.metadata[key] for key in ENDS if key in self.header.metadata]}


def open_gguf(place: str | Path, family: str | None = None, families: Mapping[str, Layout] = LAYOUTS) -> GgufCheckpoint:
    """Read a file's header and find out what it is.

    :param family: for files that look like ordinary models.
    :param families: all there are, by name; without it this package's own.
    :raises CheckpointError: for a file that is damaged, and one no family knows or whose config it refuses.
    """
    path = Path(place).expanduser()
    header = read_header(path)
    if "dllm.config" in header.metadata:
        config = _read(header, "dllm.config")
        with reading(path, _AGAIN):
            layout = layout_of(config, str(path), family or header.metadata.get("dllm.family"), families)
    else:
        layout = _family_of(header, family, families)
        config = {name: header.metadata[key] for name, key in IDS.items() if key in header.metadata}
        _check(header, layout)
    return GgufCheckpoint(path, config, layout, (path,), header)


def _read(header: Header, key: str) -> dict[str, Any]:
    origin, text = f"{key} of {header.path}", header.metadata.get(key, "{}")
    found = parse_json(text, origin, _AGAIN) if isinstance(text, str) else text
    if not isinstance(found, dict):
        raise CheckpointError(f"{origin} is no JSON object; {_AGAIN}")
    check_numbers(found, origin)
    return found


def _family_of(header: Header, given: str | None, families: Mapping[str, Layout]) -> Layout:
    """The family of a file that others converted.

    :raises CheckpointError: if nothing says it, or what is said does not fit.
    """
    graph = ARCHITECTURES.get(header.architecture)
    name = given or (graph.family if graph else None)
    if name is None:
        fitting = [layout.name for layout in families.values() if graph and graph.computes in _graphs(layout)]
        raise CheckpointError(
            message(
                "{} is an ordinary {!r} file{}",
                header.path,
                header.architecture,
                message("; if it is a diffusion model, say {family}=..., one of {}", ", ".join(sorted(fitting)))
                if fitting
                else ", which no family decodes",
            )
        )
    return layout_named(name, families)


def _graphs(layout: Layout) -> list[str]:
    """The classes that compute a family."""
    return re.findall(r"\w+", layout.classes)


def _check(header: Header, layout: Layout) -> None:
    """Refuse a family that the file contradicts.

    :raises CheckpointError: naming what does not fit.
    """
    if "token_embd.weight" not in header.tensors:
        raise CheckpointError(f"{header.path} has no tensor 'token_embd.weight'; it holds no language model")
    graph = ARCHITECTURES.get(header.architecture)
    if graph is None or graph.computes not in _graphs(layout):
        fitting = [name for name, known in ARCHITECTURES.items() if known.computes in layout.classes]
        raise CheckpointError(
            f"{header.path} is a {header.architecture!r} file, which family {layout.name!r} is not; its files are "
            f"{' or '.join(fitting) or 'not known to llama.cpp'}"
        )
    if not isinstance(header.value("context_length"), int):
        raise CheckpointError(f"{header.path} says no {header.architecture}.context_length; convert it again")
    shifted = header.metadata.get("diffusion.shift_logits")
    if shifted is not None and shifted != layout.shifted:
        raise CheckpointError(
            message(
                "{} says diffusion.shift_logits={}, which family {!r} is not; say another {family}=...",
                header.path,
                shifted,
                layout.name,
            )
        )
