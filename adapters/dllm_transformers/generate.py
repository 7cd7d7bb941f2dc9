"""The front door: `generate` with all arguments of transformers' own, by block diffusion."""

import copy
import inspect
from functools import partial
from typing import Any

from transformers import GenerationConfig
from transformers import PreTrainedModel
from transformers.generation.utils import GenerationMixin

from dllm_transformers.asked import asked_for
from dllm_transformers.drawing import wants_sampling
from dllm_transformers.host import outside_ours
from dllm_transformers.options import refuse_arguments
from dllm_transformers.options import refuse_options
from dllm_transformers.strategy import block_diffusion


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

    :param stop_strings: end an answer at these; needs `tokenizer`, as in transformers.
    :raises OptionError: for what block diffusion cannot honour.
    :raises CheckpointError: if the model is not of a supported family.
    """
    refuse_arguments(
        {
            "prefix_allowed_tokens_fn": prefix_allowed_tokens_fn,
            "synced_gpus": synced_gpus,
            "assistant_model": assistant_model,
            "assistant_tokenizer": assistant_tokenizer,
            "negative_prompt_ids": negative_prompt_ids,
            "negative_prompt_attention_mask": negative_prompt_attention_mask,
        }
    )
    asked = asked_for(model, generation_config, kwargs, outside_ours(inspect.currentframe()))
    refuse_options(asked, logits_processor or [])
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
    strategy = partial(block_diffusion, streamer=streamer, tokenizer=tokenizer, stop_strings=stop_strings)
    return GenerationMixin.generate(
        model,
        inputs,
        generation_config=generation_config,
        logits_processor=logits_processor,
        stopping_criteria=stopping_criteria,
        custom_generate=strategy,
        **kwargs,
    )
