"""The front door: `generate` with all arguments of transformers' own, by block diffusion."""

import copy
import inspect
import warnings
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from functools import partial
from traceback import walk_tb
from typing import Any

from torch import Tensor
from transformers import GenerationConfig
from transformers import PreTrainedModel
from transformers.generation.utils import GenerationMixin

from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import DllmError
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import calling
from dllm_plugins.options.unknown import unknown_option
from dllm_transformers.asked import asked_for
from dllm_transformers.asked import option_names
from dllm_transformers.delivery import ending
from dllm_transformers.drawing import wants_sampling
from dllm_transformers.host import outside_ours
from dllm_transformers.hub import check_strategy
from dllm_transformers.options import refuse_arguments
from dllm_transformers.options import refuse_options
from dllm_transformers.strategy import block_diffusion
from dllm_transformers.values import TRANSFORMERS
from dllm_transformers.values import check_config
from dllm_transformers.values import check_helpers

#: What transformers hands on to whatever computes, or takes out of the arguments itself.
_HANDED_ON = frozenset(
    {"input_ids", "cache", "past_key_values", "inputs_embeds", "logits_to_keep", "trust_remote_code"}
)


def generate(
    model: PreTrainedModel,
    inputs: Any = None,
    generation_config: GenerationConfig | None = None,
    logits_processor: Any = None,
    stopping_criteria: Any = None,
    prefix_allowed_tokens_fn: Any = None,
    synced_gpus: bool | None = None,
    assistant_model: Any = None,
    streamer: Any = None,
    negative_prompt_ids: Any = None,
    negative_prompt_attention_mask: Any = None,
    *,
    tokenizer: Any = None,
    assistant_tokenizer: Any = None,
    stop_strings: str | list[str] | None = None,
    **kwargs: Any,
) -> Any:
    """`model.generate(...)` by :func:`~dllm_transformers.block_diffusion`, same arguments, same results.

    This is what `generate` of our registered classes and `custom_generate/` folders call.

    :param assistant_model: a diffusion model that drafts what `model` verifies; see docs/pairs.md.
    :param assistant_tokenizer: its tokenizer, where the two read other ids; needs `tokenizer`, as in transformers.
    :param stop_strings: end an answer at these; needs `tokenizer`, as in transformers.
    :raises OptionError: for what block diffusion cannot honour.
    :raises CheckpointError: if the model is not of a supported family.
    """
    with ending(streamer):
        refuse_arguments(
            {
                "prefix_allowed_tokens_fn": prefix_allowed_tokens_fn,
                "synced_gpus": synced_gpus,
                "negative_prompt_ids": negative_prompt_ids,
                "negative_prompt_attention_mask": negative_prompt_attention_mask,
            }
        )
        check_config(generation_config)
        check_helpers(streamer, logits_processor, stopping_criteria)
        asked = asked_for(model, generation_config, kwargs, outside_ours(inspect.currentframe()))
        refuse_options(asked)
        _refuse_unknown(model, kwargs)
        wanted = wants_sampling(asked)
        if wanted is not None and generation_config is not None:
            generation_config = copy.copy(generation_config)
            generation_config.do_sample = wanted
        elif wanted is not None:
            kwargs["do_sample"] = wanted
        config = generation_config or model.generation_config
        if config.stop_strings is not None:
            # transformers would ask for the tokenizer that it does not hand on.
            stop_strings = stop_strings or config.stop_strings
            generation_config = copy.copy(config)
            generation_config.stop_strings = None
        strategy = partial(
            block_diffusion,
            streamer=streamer,
            tokenizer=tokenizer,
            stop_strings=stop_strings,
            assistant_model=assistant_model,
            assistant_tokenizer=assistant_tokenizer,
        )
        with calling(TRANSFORMERS), _arguments_of_transformers(), _quiet_about_length(model, inputs, kwargs):
            return GenerationMixin.generate(
                model,
                inputs,
                generation_config=generation_config,
                logits_processor=logits_processor,
                stopping_criteria=stopping_criteria,
                custom_generate=strategy,
                **kwargs,
            )


class DiffusionGenerationMixin(PreTrainedModel, GenerationMixin):
    """A class of transformers whose `generate` is ours."""

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """See :func:`dllm_transformers.generate`; `custom_generate` still is another strategy.

        :raises OptionError: also for one that cannot be loaded, or that nobody trusts.
        """
        if kwargs.get("custom_generate") is not None:
            check_strategy(self, kwargs["custom_generate"], kwargs.get("trust_remote_code"))
            return super().generate(*args, **kwargs)
        kwargs.pop("custom_generate", None)
        return generate(self, *args, **kwargs)


@contextmanager
def _quiet_about_length(model: Any, inputs: Any, kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Where gaps are filled, transformers need not say that nobody told it how many new tokens there may be."""
    ids = kwargs.get("input_ids") if inputs is None else inputs
    mask = model.spec.mask_id if hasattr(model, "spec") else model.config.vocab_size
    if not isinstance(ids, Tensor) or not bool((ids == mask).any()):
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using the model-agnostic default `max_length`", UserWarning)
        yield


@contextmanager
def _arguments_of_transformers() -> Iterator[None]:
    """What transformers raises before it calls our strategy is about the call's arguments: an error of ours."""
    try:
        yield
    except Exception as error:
        if isinstance(error, DllmError) or _is_from_strategy(error):
            raise
        raise OptionError(
            f"generate() of transformers does not take these arguments ({type(error).__name__}: {error}); change what "
            f"it names"
        ) from error


def _is_from_strategy(error: Exception) -> bool:
    """Whether it came out of the strategy: its own, a streamer's or a criterion's."""
    return any(frame.f_code is block_diffusion.__code__ for frame, _ in walk_tb(error.__traceback__))


def _refuse_unknown(model: Any, kwargs: Mapping[str, Any]) -> None:
    """Refuse arguments that neither transformers, nor the strategy, nor the model's forward has.

    :raises OptionError: saying what there is.
    """
    functions = (block_diffusion, inspect.unwrap(GenerationMixin.generate), model.forward)
    known = option_names().union(_HANDED_ON, *(inspect.signature(function).parameters for function in functions))
    for name, value in kwargs.items():
        if name not in known:
            with calling(TRANSFORMERS):
                raise OptionError(unknown_option(name, value, SamplingConfig.model_fields, " of generate()"))
