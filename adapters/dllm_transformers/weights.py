"""A transformers model as the engine's denoiser, made once per model."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from transformers import PreTrainedModel

from dllm_kernels.decoder import AnyWeights
from dllm_plugins.default_model.load import build_auto
from dllm_plugins.default_model.load import make_spec
from dllm_plugins.default_model.load import shipped_denoiser
from dllm_plugins.default_model.plain import plain_spec
from dllm_plugins.denoisers.kernel import DecoderDenoiser
from dllm_plugins.denoisers.kernel import best_decoder
from dllm_plugins.denoisers.low_rank import load_low_rank
from dllm_plugins.denoisers.low_rank import low_rank_from
from dllm_plugins.denoisers.weights import LlamaShape
from dllm_plugins.denoisers.weights import llama_from
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import shown
from dllm_plugins.models import Model
from dllm_plugins.sharing import SharedModel
from dllm_transformers.adapting import added_up
from dllm_transformers.tri_mode import DENOISER_PREFIX
from dllm_transformers.tri_mode import denoiser_tensors
from dllm_transformers.tri_mode import shape_of

_Print = tuple[object, ...]
_made: WeakKeyDictionary[PreTrainedModel, tuple[_Print, SharedModel]] = WeakKeyDictionary()


class NoText:
    """generate() deals in ids: there is no text to make."""

    def decode(self, token_ids: object, *, skip_special_tokens: bool = True) -> str:
        """No text."""
        return ""


def fingerprint(model: nn.Module, denoiser: Path | None) -> _Print:
    """Changes whenever a weight is replaced, moved or written to, or an adapter turned on or off."""
    weights = (
        (weight.data_ptr(), -1 if weight.is_inference() else weight._version, weight.device, weight.dtype)
        for weight in model.parameters()
    )
    # PEFT's layers: which adapters count, and how much. Turning one off changes no weight.
    modules: Iterable[Any] = model.modules()
    layers = (
        (module.disable_adapters, *module.active_adapters, *module.scaling.items())
        for module in modules
        if hasattr(module, "disable_adapters") and hasattr(module, "scaling")
    )
    return (denoiser, *weights, *layers)


def shared_model_of(model: PreTrainedModel, denoiser: str | Path | None) -> SharedModel:
    """The engine's view of `model`; made anew when its weights change.

    :param denoiser: file with the denoiser's weights; None for the model's own or the shipped ones.
    :raises CheckpointError: if the model is not of a supported family.
    """
    if denoiser is not None and not isinstance(denoiser, str | Path):
        raise OptionError(f"denoiser={shown(denoiser)}: give the path of a file, or leave it out")
    path = None if denoiser is None else Path(denoiser)
    found = fingerprint(model, path)
    known = _made.get(model)
    if known is not None and known[0] == found:
        return known[1]
    made = SharedModel(model_of(model, path))
    _made[model] = (found, made)
    return made


def model_of(model: PreTrainedModel, path: Path | None) -> Model:
    """`model` as the engine decodes it, on the same weights.

    :param path: a file with the denoiser's weights; None for the model's own or the shipped ones.
    :raises OptionError: for such a file beside a model with a denoiser of another kind.
    :raises CheckpointError: if the model is not of a supported family.
    """
    name = type(model).__name__
    own = getattr(model, "engine_model", None)
    if own is not None:
        if path is not None:
            raise OptionError(f"denoiser={str(path)!r} is of no use to {name}; leave it out")
        made: Model = own()
        return made
    shape, base = _base_of(model)
    dtype = base.embedding.dtype
    shipped = denoiser_tensors(model)
    if path is not None or shipped is None:
        weights = load_low_rank(path or shipped_denoiser(), shape, dtype)
    else:
        weights = low_rank_from(shipped, {}, shape, dtype, name)
    spec = replace(make_spec(shape, frozenset()), name=name)
    return Model(name, build_auto(base, weights, spec), NoText())


def plain_model_of(model: PreTrainedModel) -> Model:
    """An ordinary Llama, Qwen2 or Qwen3 as the engine decodes it, on the same weights, one token a pass.

    :raises CheckpointError: for any other.
    """
    shape, base = _base_of(model)
    spec = plain_spec(type(model).__name__, shape.vocabulary, shape.context, frozenset())
    return Model(spec.name, DecoderDenoiser(best_decoder(lambda: base, spec), spec), NoText())


def _base_of(model: PreTrainedModel) -> tuple[LlamaShape, AnyWeights]:
    shape, name = shape_of(model.config), type(model).__name__
    tensors = {key: tensor.detach() for key, tensor in added_up(model).items() if not key.startswith(DENOISER_PREFIX)}
    for key, tensor in tensors.items():
        if tensor.is_meta or not tensor.is_floating_point():
            raise CheckpointError(
                f"{name}: {key} is {tensor.dtype} on {tensor.device}; load the model in bfloat16 or float32 "
                f"without quantisation or offloading"
            )
    return shape, llama_from(tensors, shape, name)
