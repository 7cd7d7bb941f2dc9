"""What a checkpoint is, found out without loading its weights: for `llm dllm add` and `models`.

Imports torch and transformers: only for commands that need them.
"""

import re
from collections.abc import Iterable
from math import prod
from pathlib import Path

from safetensors import safe_open

from dllm_plugins import plugins
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import CheckpointError
from dllm_plugins.families.checkpoint import open_checkpoint
from dllm_plugins.families.files import WANTED
from dllm_plugins.families.files import TokenIds
from dllm_plugins.families.files import base_of
from dllm_plugins.families.files import hub_folder
from dllm_plugins.families.files import is_adapter
from dllm_plugins.families.hub import tokenizer_of
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layouts import layout_of
from dllm_plugins.families.presets import PresetChoice
from dllm_plugins.families.presets import preset_of
from dllm_plugins.families.spec import make_spec
from dllm_plugins.files.reading import reading
from dllm_plugins.files.replacing import read_config
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.models import is_gguf
from dllm_plugins.storage import check_storage
from dllm_plugins.storage import storage_of
from llm_dllm.entry import CheckpointFacts
from llm_dllm.entry import Entry

#: The small files of a repository, which tell whether the large ones are worth fetching.
SMALL = (*(pattern for pattern in WANTED if pattern != "*.safetensors"), "README.md")
#: Characters of a model card in which its front matter ends.
_FRONT = 1 << 16


def entry_of(source: str, options: LoadOptions) -> Entry:
    """Check a checkpoint, fetching it first if `source` is a hub id, and describe it.

    :param source: a folder in the hub's format or of an adapter, a hub id, or a GGUF file.
    :raises CheckpointError: for anything that could not be loaded later.
    :raises OptionError: for a preset that does not fit.
    """
    place = Path(source).expanduser()
    if is_gguf(source):
        return gguf_entry(place, options)
    if place.is_dir():
        source = str(place.resolve())
        folder = Path(source)
    else:
        small = hub_folder(source, SMALL)
        with reading(source):
            config = read_config(base_of(small, SMALL) if is_adapter(small) else small)
            layout_of(config, source, options.family, plugins.families())
            check_storage(storage_of(config, small))
        folder = hub_folder(source)
    checkpoint = open_checkpoint(folder, options.family, plugins.families())
    tokenizer = tokenizer_of(checkpoint)
    if isinstance(tokenizer, TokenIds):
        raise CheckpointError(
            f"{checkpoint.folder} has no tokenizer.json; llm deals in text, so add the tokenizer's files"
        )
    spec = make_spec(source, checkpoint, tokenizer, options, plugins.modes())
    weight, licence = weigh(checkpoint.files), licence_of(checkpoint.folder)
    facts = facts_of(checkpoint.layout, spec, *weight, licence, preset_of(source, checkpoint, options.preset))
    return _entry(source, folder, options, facts)


def gguf_entry(place: Path, options: LoadOptions) -> Entry:
    """The same for a GGUF file, of which only the header is read.

    :raises CheckpointError: for anything that could not be loaded later.
    :raises OptionError: for a preset that does not fit.
    """
    from dllm_plugins.gguf.opened import open_gguf
    from dllm_plugins.llama_cpp.choosing import LLAMA_CPP
    from dllm_plugins.llama_cpp.choosing import backend_of
    from dllm_plugins.llama_cpp.load import check_order
    from dllm_plugins.llama_cpp.load import text_of
    from dllm_plugins.llama_cpp.load import with_stored

    checkpoint = open_gguf(place, options.family, plugins.families())
    if backend_of(str(place), checkpoint, options).backend == LLAMA_CPP:
        check_order(checkpoint)
    tokenizer = text_of(checkpoint)
    if isinstance(tokenizer, TokenIds):
        raise CheckpointError(f"{place} has no tokenizer; llm deals in text, so convert the checkpoint with its own")
    source = str(place.resolve())
    stored = with_stored(checkpoint, options)
    spec = make_spec(source, checkpoint, tokenizer, stored, plugins.modes())
    tensors = checkpoint.header.tensors.values()
    licence = checkpoint.header.metadata.get("general.license")
    parameters, size = sum(prod(tensor.shape) for tensor in tensors), place.stat().st_size
    facts = facts_of(checkpoint.layout, spec, parameters, size, licence, preset_of(source, checkpoint, stored.preset))
    return _entry(source, source, options, facts)


def _entry(source: str, folder: str | Path, options: LoadOptions, facts: CheckpointFacts) -> Entry:
    """What is registered: the hub id may tell the sampler; the folder, which is loaded later, need not."""
    return Entry(
        source=source,
        folder=str(folder),
        family=options.family,
        preset=facts.sampler,
        mask_id=options.mask_id,
        facts=facts,
    )


def facts_of(
    layout: Layout, spec: ModelSpec, parameters: int, size: int, licence: str | None, preset: PresetChoice
) -> CheckpointFacts:
    """What people want to know before they use it."""
    return CheckpointFacts(
        family=layout.name,
        parameters=parameters,
        size=size,
        licence=licence or layout.licence,
        attention=layout.attention,
        cache=f"{spec.cache}; approximate if asked for" if spec.holds else spec.cache,
        sampler=spec.samplers["diffusion"],
        sampler_reason=preset.reason,
    )


def weigh(files: Iterable[Path]) -> tuple[int, int]:
    """How many parameters safetensors files hold, and in how many bytes; only headers are read.

    :raises CheckpointError: for a damaged file.
    """
    parameters = size = 0
    for path in files:
        size += path.stat().st_size
        with reading(path), safe_open(path, framework="np") as file:
            names = file.keys()
            parameters += sum(prod(file.get_slice(name).get_shape()) for name in names)
    return parameters, size


def licence_of(folder: Path) -> str | None:
    """The licence a model card's front matter names."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    with reading(card), card.open(encoding="utf-8", errors="replace") as file:
        front = re.match(r"---\n(.*?)\n---", file.read(_FRONT), re.DOTALL)
    lines = dict(re.findall(r"^(license|license_name): *['\"]?([^'\"\n]+?)['\"]? *$", front[1], re.M)) if front else {}
    return lines.get("license_name") if lines.get("license") == "other" else lines.get("license")
