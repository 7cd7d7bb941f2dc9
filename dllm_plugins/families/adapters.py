"""Adapters, as PEFT saves them, merged into the weights they were trained on while these are read.

Named by transformers' own class behind `native.`, as :class:`~dllm_transformers.DiffusionModelForCausalLM` has
it, or by the original checkpoint, as its own code does. PEFT itself adds them up, in the dtype that is stored, so
that the weights are those that `merge_and_unload` gives.
"""

import logging
import warnings
from collections.abc import Container
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import nn

from dllm_plugins.denoisers.weights import read_file
from dllm_plugins.errors import CheckpointError
from dllm_plugins.families.diffullama import LAYOUT as LLAMA
from dllm_plugins.families.files import ADAPTER
from dllm_plugins.families.files import ADAPTER_WEIGHTS
from dllm_plugins.families.layout import Config
from dllm_plugins.families.layout import Layout
from dllm_plugins.files.reading import reading
from dllm_plugins.files.reading import regular
from dllm_plugins.libraries.classes import transformers_class
from dllm_plugins.libraries.extras import need
from dllm_plugins.storage.lazy import LazyWeight

#: Where PEFT's names begin.
_ROOT = "base_model.model."
#: Where those of :class:`~dllm_transformers.DiffusionModelForCausalLM` go on.
_NATIVE = "native."
_SAVE = "train it on attention and dense layers, or save what merge_and_unload() returns and load that"


@contextmanager
def shared_apart() -> Iterator[None]:
    """The border around loading what :func:`merged` gives: transformers does not say so of each layer."""
    logger = logging.getLogger("transformers.modeling_utils")

    def other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("The tied weights mapping")

    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


class _Holder(nn.Module):
    """The class that computes, under the name that it had when the adapter was trained."""

    def __init__(self, native: nn.Module) -> None:
        super().__init__()
        self.native = native


def merged(
    tensors: Mapping[str, Tensor], skeleton: nn.Module, layout: Layout, config: Config, folder: Path
) -> dict[str, Tensor]:
    """Weights with an adapter's added; those that it leaves alone stay views of the files.

    Layers that share a weight get one each where an adapter changes either of them.

    :param tensors: by the names of `skeleton`, which has no weights yet and keeps those that change.
    :param config: the checkpoint's.
    :raises CheckpointError: for an adapter that is damaged, does not fit, or cannot be merged.
    :raises MissingExtraError: without PEFT.
    """
    peft = need("peft", f"the adapter in {folder}")
    regular(folder / ADAPTER)
    stored = read_file(folder / ADAPTER_WEIGHTS, "save the adapter again with save_pretrained; pickles are never read")
    with reading(folder, "save the adapter again"), warnings.catch_warnings():
        # What has to be said is said here, as an error.
        warnings.simplefilter("ignore")
        said = peft.PeftConfig.from_pretrained(str(folder))
        if said.is_prompt_learning:
            raise CheckpointError(f"{folder} is {said.peft_type.value}, which changes no weights; {_SAVE}")
        for name, tensor in stored.items():
            if not tensor.isfinite().all():
                raise CheckpointError(f"{folder}: {name} holds numbers that are none; train it with a smaller step")
        # A wrapper of a whole model would be made for one.
        said.task_type = None
        native = any(name.startswith(_ROOT + _NATIVE) for name in stored)
        if not native:
            stored = _renamed(stored, said, skeleton, layout, config, folder)
        _check_rows(skeleton, stored, native, folder)
        changed = _assign(skeleton, stored, tensors, native)
        model = peft.PeftModel(_Holder(skeleton) if native else skeleton, said)
        _fill(model, stored, folder)
        model.merge_and_unload()
    found = {name: skeleton.get_parameter(name).detach() for name in changed}
    _check_ties(skeleton, found, tensors, folder)
    return {**tensors, **found}


def merged_plain(tensors: Mapping[str, Tensor], config: Config, folder: Path) -> dict[str, Tensor]:
    """The same for an ordinary Llama, Qwen2 or Qwen3, whose weights have transformers' names.

    :param config: its config.json.
    :raises CheckpointError: also for a model of another kind.
    """
    kinds = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
    kind = kinds.get(str(config.get("model_type")))
    if kind is None:
        raise CheckpointError(
            f"{folder} was trained on a model of type {config.get('model_type')!r}, and adapters of "
            f"{', '.join(kinds)} are merged here; {_SAVE}"
        )
    native: Any = transformers_class(kind)
    with torch.device("meta"):
        skeleton = native(native.config_class(**{key: item for key, item in config.items() if key != "model_type"}))
    return merged(tensors, skeleton, LLAMA, config, folder)


def _module_of(name: str, modules: Container[str]) -> str:
    """The module of the class that an adapter's tensor belongs to; "" if there is none of that name."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def _check_rows(skeleton: nn.Module, stored: Mapping[str, Tensor], native: bool, folder: Path) -> None:
    """Refuse an adapter that brings an embedding or a head of another size than its base has.

    :raises CheckpointError: with the two sizes.
    """
    modules = dict(skeleton.named_modules())
    for name, tensor in stored.items():
        place = _module_of(name.removeprefix(_ROOT).removeprefix(_NATIVE if native else ""), modules)
        own = getattr(modules.get(place), "weight", None)
        if own is None or "lora_" in name or not name.endswith("weight") or not own.ndim == tensor.ndim == 2:
            continue
        if tensor.shape[1:] == own.shape[1:] and len(tensor) != len(own):
            raise CheckpointError(
                f"{folder} was trained with {len(tensor)} token ids, and its base has {len(own)}: save the base after "
                f"resize_token_embeddings and name that in {ADAPTER}, or save what merge_and_unload() returns"
            )


def _assign(skeleton: nn.Module, stored: Mapping[str, Tensor], tensors: Mapping[str, Tensor], native: bool) -> set[str]:
    """Give the class copies of the weights that are to change, which are views of the files so far; their names."""
    modules = dict(skeleton.named_modules())
    inside = (name.removeprefix(_ROOT).removeprefix(_NATIVE if native else "") for name in stored)
    targets = {_module_of(name, modules) for name in inside}
    shared = _shared(skeleton, targets, modules)
    places = {name: name for name in tensors if name.rpartition(".")[0] in targets} | shared
    given = {name: _copy(tensors[source]) for name, source in places.items()}
    skeleton.load_state_dict(given, strict=False, assign=True)
    return set(given)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.float() if isinstance(tensor, LazyWeight) else tensor.clone()


def _shared(skeleton: nn.Module, targets: Container[str], modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """Layers that share another one's weight, where an adapter changes either: by their weight's name, the other's.

    PEFT gives each an adapter of its own.
    """
    found = {}
    for name, source in _ties(skeleton).items():
        layers = [weight.rpartition(".")[0] for weight in (name, source)]
        linear = all(isinstance(modules.get(layer), nn.Linear) for layer in layers)
        if linear and any(layer in targets for layer in layers):
            found[name] = source
    return found


def _fill(model: Any, stored: Mapping[str, Tensor], folder: Path) -> None:
    """The adapter's weights in their places.

    :raises CheckpointError: for a name too many or too few, and for what cannot be merged into what is stored.
    """
    from peft import set_peft_model_state_dict
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    report = set_peft_model_state_dict(model, dict(stored))
    for name in report.unexpected_keys:
        raise CheckpointError(
            f"{folder} has {name}, which the checkpoint has no place for; name the base it belongs to"
        )
    for name in report.missing_keys:
        if ".default." in name:
            raise CheckpointError(f"{folder} lacks {name}; save the adapter again")
    for name, module in model.named_modules():
        adapted = isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
        if adapted and any(weight.is_meta for weight in module.parameters()):
            place = name.removeprefix(_ROOT).removeprefix(_NATIVE)
            raise CheckpointError(f"{folder} changes {place}, which is not stored as one weight of its own; {_SAVE}")


def _ties(skeleton: nn.Module) -> Mapping[str, str]:
    """By weights that are stored under another name, that name."""
    return getattr(skeleton, "all_tied_weights_keys", None) or {}


def _check_ties(skeleton: nn.Module, found: Mapping[str, Tensor], tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Refuse a change of what is stored once and used twice.

    :raises CheckpointError: naming it.
    """
    for name, source in _ties(skeleton).items():
        if source in found and name not in found and not torch.equal(found[source], tensors[source]):
            raise CheckpointError(f"{folder} changes {source}, which is {name} as well; {_SAVE}")


def _renamed(
    stored: Mapping[str, Tensor], said: Any, skeleton: nn.Module, layout: Layout, config: Config, folder: Path
) -> dict[str, Tensor]:
    """An adapter that goes by the original checkpoint's names, by those of the class; `said` is changed accordingly.

    :raises CheckpointError: for a layer that the class has in pieces, and settings that go by names.
    """
    modules = dict(skeleton.named_modules())
    places: dict[str, str] = {}
    found: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        original, _, rest = name.removeprefix(_ROOT).partition(".lora_")
        if original not in modules and original not in places:
            places[original] = _place_of(original, layout, config, modules, folder)
        found[f"{_ROOT}{places.get(original, original)}{'.lora_' if rest else ''}{rest}"] = tensor
    if places:
        for name in ("rank_pattern", "alpha_pattern", "modules_to_save", "target_parameters"):
            if getattr(said, name, None):
                raise CheckpointError(f"{folder} has {name}, by the names of its own code; {_SAVE}")
        said.target_modules = {name.removeprefix(_ROOT).partition(".lora_")[0] for name in found}
        said.exclude_modules = said.layers_to_transform = said.layers_pattern = None
    return found


def _place_of(original: str, layout: Layout, config: Config, modules: Container[str], folder: Path) -> str:
    """What the class calls a layer of the original checkpoint."""
    weight = torch.empty(0)
    try:
        ((name, piece),) = layout.tensors({f"{original}.weight": weight}, config).items()
    # Layouts take tensors apart that have sizes.
    except (ValueError, RuntimeError, LookupError, CheckpointError):
        name, piece = "", None
    place = name.removesuffix(".weight")
    if piece is not weight or place not in modules:
        raise CheckpointError(f"{folder} changes {original}, which is no layer of its own here; {_SAVE}")
    return place
