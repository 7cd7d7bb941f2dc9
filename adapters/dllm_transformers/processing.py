"""Logits processors of generate(): called in modes that write from left to right, elsewhere options if there is one."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor
from transformers import TemperatureLogitsWarper
from transformers import TopKLogitsWarper
from transformers import TopPLogitsWarper

from dllm_plugins.decoding.steering import Processor
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import shown
from dllm_plugins.modes.base import Sampler
from dllm_transformers.options import PROCESSED
from dllm_transformers.options import asks_for_nothing

#: What the engine draws by itself, from the generation config.
_DRAWN = (TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper)
#: What transformers applies behind the temperature; the generation config's are refused before one is built.
_BEHIND = tuple(
    getattr(transformers, name)
    for name in ("TopHLogitsWarper", "MinPLogitsWarper", "TypicalLogitsWarper", "EpsilonLogitsWarper")
    if hasattr(transformers, name)
)
#: The engine's options behind fields of the generation config.
_OPTIONS = {
    "repetition_penalty": "repetition_penalty",
    "no_repeat_ngram_size": "no_repeat_ngram_size",
    "bad_words_ids": "bad_words",
    "min_new_tokens": "min_new_tokens",
}


def steered_by(
    asked: Mapping[str, Any], arrived: Sequence[Any], given: Sequence[Any], sampler: Sampler | None, *, built: bool
) -> tuple[dict[str, Any], list[Any]]:
    """The engine's options, and the processors to call in their order.

    :param asked: fields of the generation config that the user set.
    :param arrived: what the strategy was handed: those that transformers built, and the user's.
    :param given: the user's alone.
    :param built: whether transformers built some, which it did not if nothing called generate().
    :raises OptionError: for what means nothing to a mode that commits tokens in any order.
    """
    if sampler is None:
        # An unknown mode is refused where it is known which there are.
        return {}, []
    if sampler.onward and built:
        own = [item for item in arrived if any(item is other for other in given) or not _of_drawing(item)]
        return {}, own
    what = next((f"{name}={shown(asked[name])}" for name in _others(asked)), None)
    if what is None and not sampler.onward and given:
        what = next((type(item).__name__ for item in given if not isinstance(item, _DRAWN)), None)
    if what is not None:
        raise OptionError(
            f"{what} works on one next token at a time, and mode {sampler.name!r} commits tokens in any order; use "
            f"mode='ar' or 'speculative' of generate(), where the model has them, or leave it out"
        )
    return _options(asked), list(given) if sampler.onward else []


def _of_drawing(item: Any) -> bool:
    return isinstance(item, (*_DRAWN, *_BEHIND))


def _others(asked: Mapping[str, Any]) -> list[str]:
    return [
        name
        for name, value in asked.items()
        if name in PROCESSED and name not in _OPTIONS and not asks_for_nothing(name, value)
    ]


def _options(asked: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, option in _OPTIONS.items():
        value = asked.get(name)
        if value is not None and not asks_for_nothing(name, value):
            found[option] = tuple(map(tuple, value)) if option == "bad_words" else value
    return found


def of_row(processors: Sequence[Any], padding: Tensor) -> tuple[Processor, ...]:
    """The processors of one row, which see the ids that they would see in transformers' own loop.

    :param padding: ids in front of the row's prompt, int64 [N].
    """
    return tuple(_Padded(_alone(item, len(padding)), padding) for item in processors)


class _Padded:
    def __init__(self, processor: Any, padding: Tensor) -> None:
        self._processor = processor
        self._padding = padding[None]

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        found: Tensor = self._processor(torch.cat([self._padding.to(ids), ids], dim=1), scores)
        return found


def _alone(item: Any, padding: int) -> Any:
    """One that counts the padding of a batch's rows, for a row by itself."""
    if type(item) is RepetitionPenaltyLogitsProcessor and isinstance(item.prompt_ignore_length, Tensor):
        return RepetitionPenaltyLogitsProcessor(item.penalty, prompt_ignore_length=padding or None)
    return item
