"""What values generate() takes: checked before transformers computes with them."""

from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict
from pydantic import Field
from torch import Tensor
from transformers import GenerationConfig

from dllm_plugins.errors import OptionError
from dllm_plugins.files.limits import VOCABULARY
from dllm_plugins.messages import Dialect
from dllm_plugins.messages import shown
from dllm_plugins.options.checked import Checked

#: What transformers calls the engine's options.
TRANSFORMERS = Dialect({"stop": "stop_strings", "bad_words": "bad_words_ids"})
#: Answers to one prompt, each of which is a row.
MOST_ANSWERS = 4096


class Honoured(Checked):
    """The fields of the generation config that something here depends on, as transformers documents them."""

    model_config = ConfigDict(strict=True, extra="ignore")

    max_length: int | None = Field(None, ge=1)
    max_new_tokens: int | None = Field(None, ge=1)
    max_time: float | None = Field(None, gt=0)
    stop_strings: str | list[str] | None = None
    do_sample: bool | None = None
    temperature: float | None = Field(None, ge=0, allow_inf_nan=False)
    top_k: int | None = Field(None, ge=0)
    top_p: float | None = Field(None, ge=0, le=1)
    num_return_sequences: int | None = Field(None, ge=1, le=MOST_ANSWERS)
    output_scores: bool | None = None
    output_logits: bool | None = None
    return_dict_in_generate: bool | None = None
    disable_compile: bool | None = None
    pad_token_id: int | None = Field(None, ge=-1, lt=VOCABULARY)
    bos_token_id: int | None = Field(None, ge=-1, lt=VOCABULARY)
    eos_token_id: int | list[int] | None = None


def check_values(asked: Mapping[str, Any]) -> None:
    """Refuse values of another kind, and out of range.

    :param asked: fields of the generation config that the user set.
    :raises OptionError: naming the option and its value.
    """
    # Numbers of numpy and torch are numbers, and a tensor may hold ids.
    plain = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in asked.items()}
    ends = Honoured(**plain).eos_token_id
    for end in ends if isinstance(ends, list) else [] if ends is None else [ends]:
        if not -1 <= end < VOCABULARY:
            raise OptionError(f"eos_token_id={shown(end)}: no vocabulary has that id; give one of the model's")


def check_config(config: Any) -> None:
    """Refuse what is no generation config.

    :raises OptionError: saying what to give.
    """
    if config is not None and not isinstance(config, GenerationConfig):
        raise OptionError(
            f"generation_config={shown(config)}: give a transformers.GenerationConfig, or the options as arguments"
        )


def check_helpers(streamer: Any, processors: Any, criteria: Any) -> None:
    """Refuse what cannot be a streamer, a list of processors or of criteria.

    :raises OptionError: naming the argument.
    """
    if streamer is not None and not all(callable(getattr(streamer, name, None)) for name in ("put", "end")):
        raise OptionError(f"streamer={shown(streamer)}: it needs put() and end(), as transformers' streamers have them")
    for name, found in (("logits_processor", processors), ("stopping_criteria", criteria)):
        if found is not None and not (isinstance(found, Iterable) and all(map(callable, found))):
            raise OptionError(f"{name}={shown(found)}: give a list of them")


def check_tensors(input_ids: Any, given: Mapping[str, Any]) -> None:
    """Refuse ids that are no batch of rows, and what does not belong to these rows.

    :param given: arguments of the model's forward.
    :raises OptionError: naming the argument.
    """
    if not isinstance(input_ids, Tensor) or input_ids.dim() != 2 or input_ids.is_floating_point():
        raise OptionError(f"input_ids={shown(input_ids)}: give ids as a tensor of whole numbers, [batch, length]")
    if given.get("inputs_embeds") is not None:
        # There are no ids then, and embeddings are refused by their own name.
        return
    for name in ("attention_mask", "position_ids"):
        value = given.get(name)
        if value is not None and (not isinstance(value, Tensor) or not _fits(value, input_ids, name)):
            raise OptionError(f"{name}={shown(value)}: give a tensor of the shape of input_ids")


def _fits(value: Tensor, input_ids: Tensor, name: str) -> bool:
    """Whether it says something of each id; positions may be those of all rows."""
    alike = value.shape == input_ids.shape
    return alike or (name == "position_ids" and value.dim() < 3 and value.shape[-1:] == input_ids.shape[-1:])
