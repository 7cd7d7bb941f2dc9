"""`assistant_model=` of generate(): a diffusion model drafts for the model that is asked (:mod:`dllm_plugins.pairs`).

The two are loaded already, so nothing is read here. The text is what the asked model decodes by itself, one token after
the other.
"""

from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase

from dllm_plugins.errors import OptionError
from dllm_plugins.messages import shown
from dllm_plugins.models import Model
from dllm_plugins.pairs.load import joined
from dllm_plugins.pairs.load import same_tokens
from dllm_plugins.pairs.named import Pair
from dllm_plugins.sharing import SharedModel
from dllm_transformers.tri_mode import denoiser_tensors
from dllm_transformers.weights import fingerprint
from dllm_transformers.weights import model_of
from dllm_transformers.weights import plain_model_of

_made: WeakKeyDictionary[PreTrainedModel, tuple[object, SharedModel]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Assistant:
    """What drafts.

    :param tokenizer: the asked model's; `own` the assistant's. Both where the two models read other ids, as in
        transformers.
    """

    model: PreTrainedModel
    tokenizer: Any = None
    own: Any = None


def assistant_of(model: Any, tokenizer: Any, own: Any) -> Assistant | None:
    """The arguments `assistant_model`, `tokenizer` and `assistant_tokenizer` of generate(), checked.

    :raises OptionError: for an assistant that is no diffusion model, and for a tokenizer of none.
    """
    if model is None:
        if own is not None:
            raise OptionError("assistant_tokenizer is of no use without assistant_model; leave it out")
        return None
    if not hasattr(model, "engine_model") and not (
        isinstance(model, PreTrainedModel) and denoiser_tensors(model) is not None
    ):
        raise OptionError(
            f"assistant_model={shown(type(model).__name__)} is no diffusion model, whose drafts this verifies; load "
            f"one with AutoModelForCausalLM after `import dllm_transformers`, or call generate() without "
            f"custom_generate for assisted decoding"
        )
    if own is None:
        return Assistant(model)
    for name, given in (("tokenizer", tokenizer), ("assistant_tokenizer", own)):
        if not isinstance(given, PreTrainedTokenizerBase):
            raise OptionError(f"{name}={shown(given)} is no tokenizer; give those of both models, or of none")
    return Assistant(model, tokenizer, own)


def assisted(model: PreTrainedModel, denoiser: str | Path | None, assistant: Assistant) -> SharedModel:
    """Both as one model of the engine; made anew when weights of one of them change.

    :param denoiser: as in :func:`~dllm_transformers.weights.shared_model_of`; an ordinary model has none beside an
        assistant.
    :raises OptionError: for a model that does not decode one token after the other, and two that have no ids in
        common.
    :raises CheckpointError: for a model that the engine does not compute.
    """
    if denoiser is not None:
        raise OptionError(f"denoiser={shown(str(denoiser))} is of no use beside assistant_model; leave one of them out")
    found = (*fingerprint(model, None), *fingerprint(assistant.model, None), assistant.tokenizer, assistant.own)
    known = _made.get(model)
    if known is not None and known[0] == found:
        return known[1]
    made = SharedModel(_paired(model, assistant))
    _made[model] = (found, made)
    return made


def _paired(model: PreTrainedModel, assistant: Assistant) -> Model:
    ordinary = not hasattr(model, "engine_model") and denoiser_tensors(model) is None
    target = plain_model_of(model) if ordinary else model_of(model, None)
    drafter = model_of(assistant.model, None)
    silent = target.tokenizer
    if assistant.own is not None:
        target, drafter = replace(target, tokenizer=assistant.tokenizer), replace(drafter, tokenizer=assistant.own)
    elif not same_tokens(target, drafter):
        sizes = (target.denoiser.spec.vocabulary, drafter.denoiser.spec.vocabulary)
        raise OptionError(
            f"assistant_model has {sizes[1]} token ids, and the model {sizes[0]}; give the tokenizers of both, as "
            f"tokenizer=... and assistant_tokenizer=..."
        )
    names = Pair(ar=type(model).__name__, diffusion=type(assistant.model).__name__)
    made = joined(target, drafter, names, f"{names.ar} with drafts of {names.diffusion}")
    # generate() deals in ids.
    return replace(made, tokenizer=silent)
