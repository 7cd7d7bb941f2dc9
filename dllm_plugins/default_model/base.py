"""The base of the default model, as its GGUF file holds it or as a folder in the hub's format does."""

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from typing import Protocol

from dllm_kernels.blocks import Weight
from dllm_plugins.default_model import base_model
from dllm_plugins.default_model.header import AGAIN
from dllm_plugins.default_model.header import config_of
from dllm_plugins.default_model.stored import read_stored
from dllm_plugins.default_model.unpack import unpack
from dllm_plugins.denoisers.llama_config import ids_of
from dllm_plugins.denoisers.weights import read_tensors
from dllm_plugins.denoisers.weights import stop_ids
from dllm_plugins.families.files import ADAPTER
from dllm_plugins.families.files import ADAPTER_WEIGHTS
from dllm_plugins.families.files import WANTED
from dllm_plugins.families.files import base_of
from dllm_plugins.families.files import has_tokenizer
from dllm_plugins.families.files import hub_folder
from dllm_plugins.families.files import is_adapter
from dllm_plugins.families.files import load_tokenizer
from dllm_plugins.files.reading import reading
from dllm_plugins.files.replacing import read_config
from dllm_plugins.text.tokenizer import LightTokenizer


class Base(Protocol):
    """Config, weights and tokenizer of a base."""

    @property
    def place(self) -> Path:
        """Where it is."""

    @property
    def in_blocks(self) -> bool:
        """Whether its matrices are in blocks."""

    @property
    def config(self) -> dict[str, Any]:
        """What config.json says.

        :raises CheckpointError: if it cannot be read.
        """

    def stop_ids(self, vocabulary: int) -> frozenset[int]:
        """Ids that end a text.

        :raises CheckpointError: if there is none, or one is no id below `vocabulary`.
        """

    def tensors(self) -> Mapping[str, Weight]:
        """Its weights by transformers' names.

        :raises CheckpointError: if they cannot be read.
        """

    def tokenizer(self) -> Any:
        """See :class:`~dllm_plugins.text.tokenizer.TextTokenizer`.

        :raises CheckpointError: if it cannot be read.
        """

    @property
    def whose(self) -> Path:
        """What files that are made of it are kept for: the next one for it takes the place of the one before."""

    def files(self) -> list[Path]:
        """What it is read from, but for its tokenizer: files made of it are made anew when one of these changes."""

    def as_folder(self, spare: Path) -> Path:
        """A folder in the hub's format with the base's weights.

        :param spare: a name for one that has to be written.
        """


class FileBase:
    """The default base; see :class:`Base`. Nothing is dequantised before somebody asks for that.

    :raises CheckpointError: if the file is damaged.
    """

    in_blocks = True

    def __init__(self, place: Path) -> None:
        self.place = place
        # Earlier versions made their files of the folder.
        self.whose = base_model.base_folder()
        self._stored = read_stored(place)

    @property
    def config(self) -> dict[str, Any]:
        """See :class:`Base`."""
        with reading(self.place, AGAIN):
            return config_of(self._stored.metadata)

    def stop_ids(self, vocabulary: int) -> frozenset[int]:
        """See :class:`Base`."""
        return ids_of(self.config["eos_token_id"], vocabulary, "eos_token_id")

    def tensors(self) -> Mapping[str, Weight]:
        """See :class:`Base`."""
        return self._stored.tensors

    def tokenizer(self) -> LightTokenizer:
        """See :class:`Base`."""
        from dllm_plugins.default_model.words import tokenizer_of

        with reading(self.place, AGAIN):
            return tokenizer_of(self._stored, self.place)

    def files(self) -> list[Path]:
        """See :class:`Base`."""
        return [self.place]

    def as_folder(self, spare: Path) -> Path:
        """See :class:`Base`."""
        unpack(self.place, spare)
        return spare


class FolderBase:
    """A base in the hub's format; see :class:`Base`."""

    in_blocks = False

    def __init__(self, place: Path) -> None:
        self.place = self.whose = place

    @property
    def config(self) -> dict[str, Any]:
        """See :class:`Base`."""
        return read_config(self.place)

    def stop_ids(self, vocabulary: int) -> frozenset[int]:
        """See :class:`Base`."""
        return stop_ids(self.place, vocabulary)

    def tensors(self) -> Mapping[str, Weight]:
        """See :class:`Base`."""
        return read_tensors(self.place)

    def tokenizer(self) -> Any:
        """See :class:`Base`."""
        return load_tokenizer(self.place)

    def files(self) -> list[Path]:
        """See :class:`Base`."""
        return [self.place / "config.json", *sorted(self.place.glob("*.safetensors"))]

    def as_folder(self, spare: Path) -> Path:
        """See :class:`Base`."""
        return self.place


class AdaptedBase(FolderBase):
    """A base that an adapter was trained on, with the adapter merged in; see :class:`Base`.

    :param place: of the base.
    :param adapter: the folder of the adapter, as PEFT saves it.
    :raises CheckpointError: for an adapter that cannot be merged, when weights are read.
    """

    def __init__(self, place: Path, adapter: Path) -> None:
        super().__init__(place)
        self.whose = self._adapter = adapter

    def tensors(self) -> Mapping[str, Weight]:
        """See :class:`Base`."""
        from dllm_plugins.families.adapters import merged_plain

        return merged_plain(read_tensors(self.place), self.config, self._adapter)

    def tokenizer(self) -> Any:
        """See :class:`Base`; the adapter's own comes before that of its base."""
        return load_tokenizer(self._adapter if has_tokenizer(self._adapter) else self.place)

    def files(self) -> list[Path]:
        """See :class:`Base`."""
        own = (self._adapter / name for name in (ADAPTER, ADAPTER_WEIGHTS))
        return [*super().files(), *own]

    def as_folder(self, spare: Path) -> Path:
        """See :class:`Base`."""
        return self._adapter


def folder_base(place: Path, wanted: Sequence[str] = WANTED) -> FolderBase:
    """A base in a folder, or the one that an adapter in it was trained on.

    :raises CheckpointError: for an adapter whose base cannot be had.
    """
    return AdaptedBase(base_of(place, wanted), place) if is_adapter(place) else FolderBase(place)


def open_base(base: str | Path | None, wanted: Sequence[str] = WANTED) -> Base:
    """The base that is asked for: a folder, a hub id, or None for the default one.

    :param wanted: patterns of the files to fetch of a repository.
    :raises DownloadError: if the default was never set up.
    :raises CheckpointError: if a hub id cannot be resolved, or the default base's file is damaged.
    """
    if base is not None:
        return folder_base(hub_folder(base, (*wanted, ADAPTER)), wanted)
    place = base_model.require_place()
    return FolderBase(place) if place.is_dir() else FileBase(place)


def base_place(base: str | Path | None) -> Path:
    """The same as a folder in the hub's format, which is written of the default base when that is first needed.

    :raises DownloadError: if the default was never set up.
    :raises CheckpointError: if a hub id cannot be resolved.
    """
    return base_model.require_base() if base is None else hub_folder(base)
