"""Checkpoints in their original on-disk format, loaded into transformers' own classes.

Only JSON and safetensors files are read and nothing from a checkpoint is run. Names and
shapes are compared with what the class expects before a single weight is loaded.
"""

from collections.abc import Collection
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch import Tensor
from torch import nn

from dllm_kernels.blocks import Weight
from dllm_plugins.denoisers.weights import read_file
from dllm_plugins.errors import CheckpointError
from dllm_plugins.families.adapters import merged
from dllm_plugins.families.adapters import shared_apart
from dllm_plugins.families.files import base_of
from dllm_plugins.families.files import is_adapter
from dllm_plugins.families.implementation import SPELT
from dllm_plugins.families.implementation import honour
from dllm_plugins.families.implementation import implementation_of
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layouts import LAYOUTS
from dllm_plugins.families.layouts import layout_of
from dllm_plugins.families.redundant import without_redundant
from dllm_plugins.families.spreading import loading_onto
from dllm_plugins.files.limits import CONTEXT
from dllm_plugins.files.limits import VOCABULARY
from dllm_plugins.files.limits import check_numbers
from dllm_plugins.files.limits import check_routing
from dllm_plugins.files.limits import whole
from dllm_plugins.files.reading import is_there
from dllm_plugins.files.reading import read_object
from dllm_plugins.files.reading import reading
from dllm_plugins.files.reading import regular
from dllm_plugins.files.reading import without_keys
from dllm_plugins.files.replacing import INDEX
from dllm_plugins.files.replacing import SINGLE
from dllm_plugins.files.replacing import read_config
from dllm_plugins.libraries.extras import need
from dllm_plugins.messages import message
from dllm_plugins.storage import PLAIN
from dllm_plugins.storage import Storage
from dllm_plugins.storage import check_dtypes
from dllm_plugins.storage import check_storage
from dllm_plugins.storage import plain_config
from dllm_plugins.storage import plain_dtype
from dllm_plugins.storage import plain_tensors
from dllm_plugins.storage import storage_of
from dllm_plugins.storage.tensors import add_file
from dllm_plugins.storage.tensors import compare

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: How many names may be missing before no more are made up.
_ENOUGH = 1000
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class Checkpoint:
    """A folder that was checked: its config, its layout and its weight files.

    :param config: what it says of the model, nothing of how weights are stored and computed.
    :param stated: config.json word for word.
    :param storage: how its weights are stored.
    :param implementation: how its config wants attention and experts computed.
    :param adapter: the folder of an adapter that is added to the weights while they are read.
    """

    folder: Path
    config: dict[str, Any]
    layout: Layout
    files: tuple[Path, ...]
    stated: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    storage: Storage = field(default=PLAIN, kw_only=True)
    implementation: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    adapter: Path | None = field(default=None, kw_only=True)

    def with_config(self, config: Mapping[str, Any]) -> "Checkpoint":
        """The same weights under a config that somebody changed.

        :raises CheckpointError: for an implementation that is not known.
        """
        wanted = implementation_of(config)
        plain = without_keys(plain_config(config), SPELT)
        return replace(self, config=plain, stated=dict(config), implementation=wanted)

    @cached_property
    def native_config(self) -> Any:
        """The config of transformers' own class; its type is not known before the checkpoint is.

        :raises CheckpointError: for values that the family or the class refuses.
        """
        with reading(self.folder / "config.json"):
            native: Any = self.layout.native(self.config)
            return native.config_class(**self.layout.config(self.config))

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return self._size("vocab_size", VOCABULARY)

    @property
    def context(self) -> int:
        """How many positions it was made for."""
        return self._size("max_position_embeddings", CONTEXT)

    def _size(self, name: str, most: int) -> int:
        value = getattr(self.native_config.get_text_config(), name, None)
        return whole(value, name, str(self.folder / "config.json"), 1, most)

    @cached_property
    def generation(self) -> dict[str, Any]:
        """generation_config.json; empty if there is none.

        :raises CheckpointError: if it cannot be read, or holds a number that no model has.
        """
        place = self.folder / "generation_config.json"
        if not is_there(place):
            return {}
        found = read_object(place)
        check_numbers(found, str(place))
        return found


def open_checkpoint(
    folder: str | Path, family: str | None = None, families: Mapping[str, Layout] = LAYOUTS
) -> Checkpoint:
    """Read a folder's config and find its weight files.

    :param folder: of a checkpoint, or of an adapter as PEFT saves it, which names its checkpoint.
    :param family: for checkpoints that look like ordinary models.
    :param families: all there are, by name; without it this package's own.
    :raises CheckpointError: for a folder without config or safetensors files, an index
        that names files elsewhere, weights that are stored in a way that is not read, and a checkpoint
        no family knows or whose config it refuses.
    """
    place = Path(folder)
    if is_adapter(place):
        return replace(open_checkpoint(base_of(place), family, families), adapter=place)
    config = read_config(place)
    with reading(place / "config.json"):
        layout = layout_of(config, str(place), family, families)
        storage = storage_of(config, place)
        check_storage(storage)
        return Checkpoint(place, {}, layout, _weight_files(place), storage=storage).with_config(config)


def _weight_files(folder: Path) -> tuple[Path, ...]:
    """Those the index names; without one the only file, or all there are. Others are no part of the checkpoint."""
    index = folder / INDEX
    names = {SINGLE} if is_there(folder / SINGLE) else {path.name for path in folder.glob("*.safetensors")}
    names = _indexed(index) if is_there(index) else names
    if not names:
        pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        found = f"; {pickles[0]} is a pickle, which may run code and is never read: convert it first" if pickles else ""
        raise CheckpointError(f"no *.safetensors in {folder}{found}")
    for name in sorted(names):
        if not is_there(folder / name):
            raise CheckpointError(f"{INDEX} names {name}, which is not in {folder}; download the checkpoint again")
        regular(folder / name)
    return tuple(folder / name for name in sorted(names))


def _indexed(index: Path) -> set[str]:
    """The file names of a sharded checkpoint's index."""
    found = read_object(index).get("weight_map")
    if not isinstance(found, dict):
        raise CheckpointError(f"cannot read {index}: its weight_map is no JSON object; download the checkpoint again")
    names = list(found.values())
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index} names {name!r}, which is not a safetensors file of this folder")
    return set(names)


def read_mapped(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """All tensors by their original names, as plain weights; they are views of the files, not copies.

    :raises CheckpointError: for a damaged file, a tensor that two files hold, and weights that are not
        stored as is said of them.
    """
    tensors: dict[str, Tensor] = {}
    for path in checkpoint.files:
        add_file(tensors, read_file(path, "download it again"), path)
    with reading(checkpoint.folder):
        return plain_tensors(tensors, checkpoint.storage)


def native_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """All tensors by the names of transformers' own class, views of the files; experts stay one by one.

    :raises CheckpointError: for a damaged file, and weights that contradict the config.
    """
    config = checkpoint.native_config
    stored = read_mapped(checkpoint)
    with reading(checkpoint.folder):
        tensors = checkpoint.layout.tensors(stored, checkpoint.config)
        check_size(tensors, config, checkpoint.folder)
        with torch.device("meta"):
            skeleton = checkpoint.layout.native(checkpoint.config)(config)
        tensors = without_redundant(tensors, skeleton, config, str(checkpoint.folder))
        check_dtypes(tensors, str(checkpoint.folder))
        where = f"{checkpoint.folder} ({checkpoint.layout.name})"
        compare(tensors, expected_tensors(skeleton, tensors), where, "download it again")
    if checkpoint.adapter is None:
        return tensors
    return merged(tensors, skeleton, checkpoint.layout, checkpoint.config, checkpoint.adapter)


def check_size(tensors: Mapping[str, Weight], config: Any, place: Path) -> None:
    """Refuse numbers that no file of so few tensors, and so small ones, can mean: before a class is built by them.

    :param config: of transformers' class.
    :param place: the folder or file, for errors.
    :raises CheckpointError: naming the config's number.
    """
    text = config.get_text_config()
    check_routing(text, str(place / "config.json"))
    largest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    for name, most in (("num_hidden_layers", len(tensors)), ("hidden_size", largest), ("vocab_size", largest)):
        found = getattr(text, name, 0)
        if found > most:
            raise CheckpointError(
                f"{place}: config.json says {name}={found}, but there are {len(tensors)} tensors whose "
                f"largest size is {largest}; download the checkpoint again"
            )


def load_checkpoint(
    checkpoint: Checkpoint,
    dtype: torch.dtype | None = None,
    device_map: str | dict[str, Any] | None = None,
    offload_folder: str | Path | None = None,
    max_memory: dict[int | str, int | str] | None = None,
    offload_buffers: bool = False,
) -> "PreTrainedModel":
    """A checkpoint in transformers' own class, in evaluation mode.

    :param dtype: of the weights; None for the checkpoint's own.
    :param device_map: as in `from_pretrained`, for models larger than one device.
    :param offload_folder: where weights go that the device map puts on disk.
    :param max_memory: of each device, and whether `offload_buffers` go with the weights, as in `from_pretrained`.
    :raises CheckpointError: for anything that does not fit; there is no partial model then.
    :raises OptionError: for a device map, or what belongs to it, that cannot be met.
    :raises MissingExtraError: for a device map without accelerate.
    """
    if device_map is not None:
        need("accelerate", message("{device_map}={!r}", device_map))
    # transformers types neither its config classes nor its loading reports.
    native: Any = checkpoint.layout.native(checkpoint.config)
    config = checkpoint.native_config
    tensors = native_tensors(checkpoint)
    stored = plain_dtype(tensors)
    # The class is fed tensors that were compared; it is given no place to read anything from.
    spread = {"device_map": device_map, "max_memory": max_memory, "offload_folder": offload_folder}
    with loading_onto(checkpoint.folder, spread), shared_apart():
        model, report = native.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=stored if dtype is None else dtype,
            **spread,
            offload_buffers=offload_buffers,
            output_loading_info=True,
            trust_remote_code=False,
        )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(kind):
            raise CheckpointError(f"{checkpoint.folder}: {kind.replace('_', ' ')} {sorted(report[kind])[:3]}")
    honour(model, checkpoint.implementation)
    loaded: PreTrainedModel = model.eval()
    return loaded


def expected_tensors(skeleton: nn.Module, stored: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Names and shapes a checkpoint of a class holds; tied tensors once.

    :param skeleton: the class, without weights.
    :param stored: the names that are there: experts may be stored stacked or one by one. Where far more
        would be expected than there are, the rest is left out.
    """
    tied = set(getattr(skeleton, "all_tied_weights_keys", None) or ())
    expected: dict[str, tuple[int, ...]] = {}
    for name, tensor in skeleton.state_dict().items():
        if len(expected) > 2 * len(stored) + _ENOUGH:
            break
        if name in tied:
            continue
        if name in stored:
            expected[name] = tuple(tensor.shape)
            continue
        prefix, _, last = name.rpartition(".experts.")
        if last == "gate_up_proj":
            for expert in range(tensor.shape[0]):
                half = (tensor.shape[1] // 2, tensor.shape[2])
                expected[f"{prefix}.experts.{expert}.gate_proj.weight"] = half
                expected[f"{prefix}.experts.{expert}.up_proj.weight"] = half
        elif last == "down_proj":
            for expert in range(tensor.shape[0]):
                expected[f"{prefix}.experts.{expert}.down_proj.weight"] = tuple(tensor.shape[1:])
        else:
            expected[name] = tuple(tensor.shape)
    return expected
