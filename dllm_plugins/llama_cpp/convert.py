"""From a family's checkpoint to a GGUF file that llama.cpp loads.

The file says all that `load_model` needs to build the same model as from the folder: under
`dllm.` are config.json and generation_config.json as they are, the family, the mask and,
where one was said or the checkpoint's name tells it, the sampler.
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from dllm_plugins import plugins
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.families.checkpoint import Checkpoint
from dllm_plugins.families.checkpoint import native_tensors
from dllm_plugins.families.checkpoint import open_checkpoint
from dllm_plugins.families.diffullama import LAYOUT as DIFFULLAMA
from dllm_plugins.families.files import hub_folder
from dllm_plugins.families.hub import tokenizer_of as folder_tokenizer
from dllm_plugins.families.layout import name_of
from dllm_plugins.families.presets import preset_of
from dllm_plugins.families.spec import mask_of
from dllm_plugins.files.progress import Progress
from dllm_plugins.files.progress import quiet
from dllm_plugins.files.reading import reading
from dllm_plugins.files.whole import beside
from dllm_plugins.gguf.architectures import Architecture
from dllm_plugins.gguf.architectures import Metadata
from dllm_plugins.gguf.architectures import architecture_of
from dllm_plugins.gguf.architectures import describe
from dllm_plugins.gguf.names import TensorEntry
from dllm_plugins.gguf.names import arrange
from dllm_plugins.gguf.rotary import rotary
from dllm_plugins.gguf.vocabulary import vocabulary
from dllm_plugins.gguf.writing import FLOATS
from dllm_plugins.gguf.writing import size
from dllm_plugins.gguf.writing import write
from dllm_plugins.llama_cpp.quantise import TYPES
from dllm_plugins.llama_cpp.quantise import available
from dllm_plugins.llama_cpp.quantise import estimate
from dllm_plugins.llama_cpp.quantise import quantise
from dllm_plugins.messages import message

#: Types of file, with llama.cpp's number.
QUANTS = {"F32": 0, "F16": 1, "BF16": 32} | {name: number for name, (number, _) in TYPES.items()}
#: What the default model's base is called here: an ordinary Llama, whose family has no layout.
BASE = replace(DIFFULLAMA, name="base")


def convert(
    place: str | Path,
    out: Path,
    quant: str = "BF16",
    *,
    progress: Progress = quiet,
    family: str | None = None,
    preset: str | None = None,
    mask_id: int | None = None,
) -> Path:
    """Write a checkpoint as one GGUF file; a file that is there is replaced when the new one is whole.

    :param place: a folder in the hub's format, or a hub id.
    :param quant: the type of the weights, one of :data:`QUANTS`.
    :param progress: called with (stage, done, total) in bytes; stages are "write" and "quantise".
    :param family: of a checkpoint that looks like an ordinary model.
    :param preset: the sampler it was made for, where its name does not tell.
    :param mask_id: the mask token, where neither the checkpoint nor its family says it.
    :return: `out`.
    :raises OptionError: for an unknown type, or a preset that does not fit.
    :raises CheckpointError: for anything llama.cpp would compute differently or that is
        missing; nothing was written then.
    :raises GgufError: if llama.cpp is needed to quantise and is not there, or fails.
    """
    kind = _checked_kind(quant)
    checkpoint = open_checkpoint(hub_folder(place), family, plugins.families())
    with reading(checkpoint.folder):
        found = architecture_of(checkpoint)
        tokenizer = folder_tokenizer(checkpoint)
        mask = mask_of(checkpoint, tokenizer, mask_id, checkpoint.vocabulary)
        metadata = _general(checkpoint, found, str(place)) | vocabulary(tokenizer, checkpoint.vocabulary, mask)
        metadata |= _ours(checkpoint, str(place), preset, mask)
    return _save(checkpoint, found, metadata, _checked_out(out), kind, progress)


def convert_base(place: str | Path, out: Path, quant: str = "BF16", *, progress: Progress = quiet) -> Path:
    """The same for the default model's base: an ordinary Llama, written as an ordinary GGUF file.

    :raises OptionError: for an unknown type.
    :raises CheckpointError: for anything llama.cpp would compute differently or that is missing.
    :raises GgufError: if llama.cpp is needed to quantise and is not there, or fails.
    """
    kind, folder = _checked_kind(quant), hub_folder(place)
    checkpoint = open_checkpoint(folder, DIFFULLAMA.name)
    checkpoint = replace(checkpoint, layout=BASE)
    with reading(folder):
        found = architecture_of(checkpoint)
        metadata = _general(checkpoint, found, str(place))
        metadata |= vocabulary(folder_tokenizer(checkpoint), checkpoint.vocabulary, None)
    return _save(checkpoint, found, metadata, _checked_out(out), kind, progress)


def _checked_kind(quant: str) -> str:
    kind = quant.upper()
    if kind not in QUANTS:
        raise OptionError(message("{quant}={!r} is unknown; known types: {}", quant, ", ".join(QUANTS)))
    if kind in TYPES:
        available()
    return kind


def _save(
    checkpoint: Checkpoint, found: Architecture, metadata: Metadata, out: Path, kind: str, progress: Progress
) -> Path:
    """Write the file, through one with wide weights where they are to be quantised."""
    tensors = native_tensors(checkpoint)
    with reading(checkpoint.folder):
        keys, factors = rotary(checkpoint.native_config, found)
        entries = arrange(tensors, checkpoint.native_config, found)
    if factors is not None:
        entries.append(TensorEntry("rope_freqs.weight", tuple(factors.shape), lambda: factors))
    wide = kind if kind in FLOATS else _stored(tensors.values())
    metadata = metadata | keys | {"general.file_type": QUANTS[wide]}
    goal = estimate(entries, kind) if kind in TYPES else 0
    try:
        with beside(out) as part:
            _room(out, size(entries, wide) + goal)
            if wide == kind:
                write(part, metadata, entries, wide, progress)
            else:
                source = part.with_name(f"{part.name}.wide")
                write(source, metadata, entries, wide, progress)
                quantise(source, part, kind, progress, goal)
    except OSError as error:
        raise CheckpointError(f"cannot write {out}: {error}; choose another place, or free some room") from error
    return out


def _stored(tensors: Iterable[Tensor]) -> str:
    """The type that holds every stored weight as it is."""
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors if tensor.ndim > 1}
    return {"bfloat16": "BF16", "float16": "F16"}.get("+".join(kinds), "F32")


def _checked_out(out: Path) -> Path:
    out = Path(out)
    if out.is_dir() or not out.parent.is_dir():
        raise OptionError(f"{out} cannot be written: give the name of a file in a folder that exists")
    return out


def _room(out: Path, wanted: int) -> None:
    free = shutil.disk_usage(out.parent).free
    if wanted > free:
        raise CheckpointError(f"{out} needs {wanted >> 20} MiB, and {out.parent} has {free >> 20} MiB; free some")


def _general(checkpoint: Checkpoint, found: Architecture, place: str) -> Metadata:
    return {
        "general.architecture": found.name,
        "general.type": "model",
        "general.name": name_of(place),
        **describe(checkpoint.native_config, found),
    }


def _ours(checkpoint: Checkpoint, place: str, preset: str | None, mask: int) -> Metadata:
    """What loading needs to make the same model of the file as of the folder."""
    metadata: Metadata = {
        "diffusion.shift_logits": checkpoint.layout.shifted,
        "dllm.name": name_of(place),
        "dllm.family": checkpoint.layout.name,
        "dllm.mask_token_id": mask,
        "dllm.config": json.dumps(checkpoint.config),
    }
    sampler = preset_of(place, checkpoint, preset).sampler
    if sampler is not None and sampler != checkpoint.layout.modes.get("diffusion"):
        metadata["dllm.preset"] = sampler
    if checkpoint.generation:
        metadata["dllm.generation_config"] = json.dumps(checkpoint.generation)
    return metadata
