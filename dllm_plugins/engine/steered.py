"""A request's penalties and bans, made ready for its row; what a mode cannot do is refused by the mode that does it."""

from collections.abc import Sequence
from typing import Any

from dllm_plugins.decoding.row import Row
from dllm_plugins.decoding.steering import Processor
from dllm_plugins.decoding.steering import Steering
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import Option
from dllm_plugins.messages import message
from dllm_plugins.messages import shown
from dllm_plugins.modes.base import Sampler

_OPTIONS = ("repetition_penalty", "no_repeat_ngram_size", "bad_words", "min_new_tokens")


def steering_of(
    row: Row, processors: Sequence[Processor], sampler: Sampler, tokenizer: Any, spec: ModelSpec
) -> Steering | None:
    """What a request does to logits; None if it leaves them alone.

    :raises OptionError: for what the mode cannot do, what the model has no ids for, and what leaves nothing to say.
    """
    config = row.config
    given = {name: getattr(config, name) for name in _OPTIONS if getattr(config, name) is not None}
    if not given and not processors:
        return None
    words = [ids for word in config.bad_words or () for ids in _spellings(word, tokenizer)]
    _check(given, words, processors, sampler, spec)
    return Steering(
        prompt=row.prompt,
        stop_ids=row.stop_ids,
        penalty=config.repetition_penalty or 1.0,
        ngram=config.no_repeat_ngram_size or 0,
        banned=frozenset(ids[0] for ids in words if len(ids) == 1),
        phrases=tuple(ids for ids in words if len(ids) > 1),
        least=config.min_new_tokens or 0,
        processors=tuple(processors),
    )


def _spellings(word: str | tuple[int, ...], tokenizer: Any) -> list[tuple[int, ...]]:
    """The ids of a word: as they are given, or of a text as it begins a line and as it stands behind a space."""
    if not isinstance(word, str):
        return [word]
    encode = getattr(tokenizer, "encode", None)
    if encode is None:
        raise OptionError(
            message("{bad_words} has the text {!r}, and there is no tokenizer here; give token ids", word)
        )
    texts = dict.fromkeys((word, f" {word}"))
    return list(dict.fromkeys(tuple(encode(text, add_special_tokens=False)) for text in texts))


def _check(
    given: dict[str, Any],
    words: Sequence[tuple[int, ...]],
    processors: Sequence[Processor],
    sampler: Sampler,
    spec: ModelSpec,
) -> None:
    for ids in words:
        wrong = [token for token in ids if not 0 <= token < spec.vocabulary]
        if wrong or not ids:
            raise OptionError(
                message("{bad_words} has {}, but ids of {} are 0 to {}", list(ids), spec.name, spec.vocabulary - 1)
            )
    if len({ids[0] for ids in words if len(ids) == 1}) >= spec.vocabulary:
        raise OptionError(message("{bad_words} names all {} ids of {}; leave some out", spec.vocabulary, spec.name))
    if sampler.unheld is not None and not sampler.onward:
        name = next(iter(given), None)
        what = message("logits processors") if name is None else message("{}={}", Option(name), shown(given[name]))
        raise OptionError(
            message(
                "{} has no effect in mode {!r}: {}; choose another mode of {}",
                what,
                sampler.name,
                sampler.unheld,
                spec.name,
            )
        )
    if not sampler.onward:
        _check_canvas(given, words, processors, sampler)


def _check_canvas(
    given: dict[str, Any], words: Sequence[tuple[int, ...]], processors: Sequence[Processor], sampler: Sampler
) -> None:
    """Refuse what only has a meaning where text is written from left to right."""
    phrase = next((ids for ids in words if len(ids) > 1), None)
    if given.get("no_repeat_ngram_size") is not None:
        what = message("{no_repeat_ngram_size}={}", given["no_repeat_ngram_size"])
    elif phrase is not None:
        what = message("{bad_words} of several tokens, such as {},", list(phrase))
    elif processors:
        what = message("a logits processor ({})", type(processors[0]).__name__)
    else:
        return
    raise OptionError(
        message(
            "{} is about one next token at a time, and mode {!r} commits tokens in any order; use {mode}='ar' or "
            "'speculative' where the model has them, or leave it out",
            what,
            sampler.name,
        )
    )
