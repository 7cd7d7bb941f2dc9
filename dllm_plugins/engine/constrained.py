"""A request's constraint, made ready for its model; what cannot be held is refused before the first pass."""

from typing import Any

from dllm_plugins.constraints.language import language_of
from dllm_plugins.constraints.reach import Reach
from dllm_plugins.constraints.values import Constraint
from dllm_plugins.constraints.values import Tree
from dllm_plugins.constraints.values import option_of
from dllm_plugins.decoding.limits import Limits
from dllm_plugins.decoding.row import Row
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.engine.constrained_gaps import limits_of_gaps
from dllm_plugins.engine.languages import Languages
from dllm_plugins.engine.languages import WantedLanguage
from dllm_plugins.engine.languages import languages_of
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.messages import message
from dllm_plugins.modes.base import Sampler
from dllm_plugins.request import AnswerPart
from dllm_plugins.text.thinking import Thinking
from dllm_plugins.text.thoughts import behind_thinking


def limits_of(
    row: Row,
    begin: int,
    sampler: Sampler,
    tokenizer: Any,
    spec: ModelSpec,
    thinking: Thinking | None = None,
    constraint: Constraint | None = None,
    part: AnswerPart | None = None,
) -> Limits | None:
    """What the answer of a row, or its gaps, are held to.

    :param begin: the position where the text of a template begins.
    :param thinking: what an answer may write first, which the constraint is not about.
    :param constraint: of an answer, in place of the row's own.
    :param part: what the answer is a part of, which the constraint is about; None for one that is whole.
    :raises OptionError: for a constraint that cannot be served, or that no text fulfils.
    :raises RequestError: where what fulfils it does not fit.
    """
    constraint = row.config.constraint if constraint is None else constraint
    if constraint is None and all(gap.constraint is None for gap in row.gaps):
        return None
    elastic = sampler.elastic if row.gaps else None
    if sampler.unheld is not None and elastic is None:
        raise OptionError(
            message(
                "mode {!r} cannot hold its answer to {}: {}; choose another mode of {}",
                sampler.name,
                option_of(constraint),
                sampler.unheld,
                spec.name,
            )
        )
    settings = sampler.read(row.config, spec.sampling)
    suppressed = getattr(settings, "suppress_tokens", ())
    shown = frozenset[int]() if thinking is None else thinking.shown
    languages, never = languages_of(tokenizer, spec, shown), frozenset({*suppressed, spec.mask_id})
    if row.gaps:
        return limits_of_gaps(row, begin, languages, never, elastic and elastic(settings, spec))
    whole = constraint
    if thinking is not None:
        whole = Tree(behind_thinking(language_of(constraint), thinking), option_of(constraint))
    return _limits_of_an_answer(row, whole, languages, never, spec, part or AnswerPart(0, 0))


def _limits_of_an_answer(
    row: Row, constraint: Constraint, languages: Languages, never: frozenset[int], spec: ModelSpec, part: AnswerPart
) -> Limits:
    if not row.stop_ids:
        raise OptionError(
            message(
                "{} needs a token that ends an answer, and {} names none; write eos_token_id into its "
                "generation_config.json or config.json (tokenizer.ggml.eos_token_id of a GGUF file), or give it with "
                "the request: eos_token_id of transformers' generate(), stop_ids of Request in Python",
                option_of(constraint),
                spec.name,
            )
        )
    automaton = languages.automaton(WantedLanguage(constraint, row.stop_ids, never))
    room = part.begun + row.config.max_new_tokens + part.behind
    if automaton.shortest < 0:
        raise OptionError(message("{}: no text fulfils it in this model's tokens; mend it", option_of(constraint)))
    if automaton.shortest > room:
        raise RequestError(
            message(
                "{}: the shortest text that fulfils it has {} tokens, but there is room for {}; raise "
                "{max_new_tokens}, or shorten the prompt",
                option_of(constraint),
                automaton.shortest,
                room,
            )
        )
    reach = Reach(automaton, row.prompt - part.begun, row.end + part.behind, spec.mask_id)
    if not reach.possible([]):
        raise RequestError(
            message(
                "{}: no text of exactly {} tokens fulfils it, and suppress_tokens forbids what ends an "
                "answer; leave it out, or change {max_new_tokens}",
                option_of(constraint),
                room,
            )
        )
    if not reach.possible([*row.tokens, *row.given]):
        raise RequestError(
            message(
                "{}: what the prompt holds behind its first mask does not fit it; change one of the two",
                option_of(constraint),
            )
        )
    return reach
