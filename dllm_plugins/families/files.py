"""Folders of checkpoints: from a place or a hub id, and their tokenizers."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.reading import is_there
from dllm_plugins.files.reading import read_object
from dllm_plugins.files.reading import reading
from dllm_plugins.files.reading import regular

if TYPE_CHECKING:
    from transformers import AutoTokenizer
    from transformers import PreTrainedTokenizerBase

#: Bytes of a file of a tokenizer; the largest published ones have 40 million.
MAX_TOKENIZER = 1 << 28
#: What a folder holds instead of config.json where it is an adapter, as PEFT saves it.
ADAPTER = "adapter_config.json"
#: Where its weights are then.
ADAPTER_WEIGHTS = "adapter_model.safetensors"
#: What is fetched from a hub repository: nothing that runs.
WANTED = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")


def hub_folder(name: str | Path, wanted: Sequence[str] = WANTED, **options: Any) -> Path:
    """A folder, or the local copy of a hub repository, fetched if it is not there yet.

    `HF_HUB_OFFLINE` is honoured.

    :param wanted: patterns of the files to fetch.
    :param options: of `snapshot_download`, such as `revision`.
    :raises CheckpointError: if it is neither a folder nor a hub id that can be had; and for GGUF
        files, which have a loader of their own.
    """
    with reading(repr(str(name)), "give a folder, or a hub id such as OWNER/NAME"):
        folder = Path(name).expanduser()
        there = folder.is_dir()
    if there:
        _refuse_gguf(folder)
        return folder
    if folder.suffix.lower() == ".gguf":
        raise CheckpointError(
            f"{name} is a GGUF file, and here a folder or a hub id is needed: load_model, llm and LangChain take the "
            f"file itself as their model"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), allow_patterns=list(wanted), **options))
    # Its validators, the connection and the disk raise what they like.
    except Exception as error:
        raise CheckpointError(
            f"{str(name)!r} is neither a folder here nor a hub id that can be fetched ({error}); {_fetching(name)}"
        ) from error


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and no checkpoint."""
    return is_there(folder / ADAPTER) and not is_there(folder / "config.json")


def base_name(folder: Path) -> str:
    """What an adapter says it was trained on: a place or a hub id.

    :raises CheckpointError: where it does not say it.
    """
    place = folder / ADAPTER
    name = read_object(place).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"{place} has no base_model_name_or_path; write there which checkpoint it was trained on")
    return name


def base_revision(folder: Path) -> str | None:
    """Of which revision of a hub repository that is, if an adapter says so.

    :raises CheckpointError: where it says what names none.
    """
    place = folder / ADAPTER
    found = read_object(place).get("revision")
    if found is not None and not isinstance(found, str):
        raise CheckpointError(f"{place} says revision={found!r}; write a branch, a tag or a commit there, or null")
    return found or None


def base_of(folder: Path, wanted: Sequence[str] = WANTED) -> Path:
    """The folder of the checkpoint that an adapter was trained on, fetched if it is a hub id, in its revision.

    :raises CheckpointError: where the adapter does not say it, it cannot be had, or it is an adapter itself.
    """
    name = base_name(folder)
    revision = base_revision(folder)
    try:
        base = hub_folder(name, wanted, revision=revision)
    except CheckpointError as error:
        raise CheckpointError(
            f"{folder / ADAPTER} says base_model_name_or_path={name!r}, which cannot be had: {error}"
        ) from error
    if is_adapter(base):
        raise CheckpointError(
            f"{folder / ADAPTER} names {name}, an adapter itself; save what its merge_and_unload() returns, and name "
            f"that"
        )
    return base


def _fetching(name: str | Path) -> str:
    """What gets a repository that is not here."""
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(name)):
        return (
            f"check the name, and run `hf download {name}` where there is a network, after `hf auth login` if the "
            f"repository is gated"
        )
    return "give an existing folder or OWNER/NAME, or run `python -m dllm_plugins setup` for the default model"


def _refuse_gguf(folder: Path) -> None:
    """Say what to load, in a folder that holds nothing but GGUF files.

    :raises CheckpointError: naming one.
    """
    files = sorted(folder.glob("*.gguf"))
    if files and not (folder / "config.json").exists():
        raise CheckpointError(f"{folder} holds GGUF files and no checkpoint; name the file itself, such as {files[0]}")


class TokenIds:
    """Stands in for the tokenizer of a folder that has none: ids go in and come out."""

    chat_template = None
    mask_token_id = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """No text."""
        return ""

    def encode(self, text: str, **_options: object) -> list[int]:
        """Refused.

        :raises CheckpointError: always.
        """
        raise CheckpointError(f"{self.folder} has no tokenizer.json; add the tokenizer's files, or give token ids")


def has_tokenizer(folder: Path) -> bool:
    """Whether there is anything to make a tokenizer of."""
    return any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model"))


def tokenizer_class(folder: Path) -> "type[PreTrainedTokenizerBase]":
    """The class that reads a folder's tokenizer; Dream's come as the two files of Qwen2's byte pairs."""
    from transformers import PreTrainedTokenizerFast
    from transformers import Qwen2Tokenizer

    pairs = all((folder / name).exists() for name in ("vocab.json", "merges.txt"))
    return Qwen2Tokenizer if pairs and not (folder / "tokenizer.json").exists() else PreTrainedTokenizerFast


def load_tokenizer(
    folder: Path, kind: "type[AutoTokenizer] | type[PreTrainedTokenizerBase] | None" = None
) -> "PreTrainedTokenizerBase":
    """The tokenizer of a checkpoint, made of its data files: no code of a folder is run.

    :param kind: the class to use. None is the one that reads tokenizer.json as it stands, and AutoTokenizer where
        there is none; that asks config.json, and so refuses folders whose model type transformers does not know.
    :raises CheckpointError: if the folder has none, or only one that is code; if a file is damaged.
    """
    check_files(folder)
    with reading(f"the tokenizer in {folder}", _remedy(folder)):
        tokenizer: PreTrainedTokenizerBase = (kind or _reader(folder)).from_pretrained(folder, trust_remote_code=False)
        # What goes around every text, and how long one may be, is looked at by the first text only.
        tokenizer.encode("")
        return tokenizer


def _reader(folder: Path) -> Any:
    """AutoTokenizer imports the classes of models, seconds long, to look for what tokenizer.json says already."""
    if (folder / "tokenizer.json").exists():
        return tokenizer_class(folder)
    from transformers import AutoTokenizer

    return AutoTokenizer


def check_files(folder: Path) -> None:
    """Refuse a folder in which something else stands where transformers opens files.

    :raises CheckpointError: naming it.
    """
    for pattern in ("*.json", "*.jinja", "*.txt", "*.model", "additional_chat_templates/*.jinja"):
        for path in folder.glob(pattern):
            regular(path, limit=MAX_TOKENIZER)


def _remedy(folder: Path) -> str:
    """What mends a tokenizer that cannot be read."""
    try:
        named = "auto_map" in read_object(folder / "tokenizer_config.json")
    except CheckpointError:
        named = False
    if named and not (folder / "tokenizer.json").exists():
        return "its code (auto_map) is never run: save it as tokenizer.json where you trust it, or get one that is"
    return "download the tokenizer's files again"
