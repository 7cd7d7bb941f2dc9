"""The job of a request and its row: what reads its text, what decodes it, where its prefix is kept."""

import time
from collections.abc import Sequence
from functools import partial

from dllm_plugins.decoding.row import Row
from dllm_plugins.decoding.running import RunningProgram
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.engine.choice import limits_of_calls
from dllm_plugins.engine.choice import program_of
from dllm_plugins.engine.gap_texts import GapTexts
from dllm_plugins.engine.job import Job
from dllm_plugins.engine.profile import PARTS
from dllm_plugins.engine.profile import timed_limits
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.modes.base import Sampler
from dllm_plugins.request import Request
from dllm_plugins.text.answer import AnswerText
from dllm_plugins.text.answer import Tokenizer
from dllm_plugins.text.puzzles import GridLayout
from dllm_plugins.text.thinking import Divider
from dllm_plugins.text.thinking import Thinking


def job_of(
    request: Request,
    row: Row,
    sampler: Sampler,
    spec: ModelSpec,
    tokenizer: Tokenizer,
    prefixes: KeptPrefixes | None,
) -> Job:
    """What the engine decodes.

    :param tokenizer: of the request.
    :raises OptionError: for calls of tools that no text is.
    :param prefixes: where prefixes are kept, unless the request names another place.
    """
    config = request.config
    kept = prefixes if request.prefixes is None else request.prefixes
    stops = config.stop if request.stop_ids is not None else (*config.stop, *spec.stops)
    filled = not row.gaps and row.config.max_new_tokens - len(row.given) < config.max_new_tokens
    parts = dict.fromkeys(PARTS, 0.0) if config.stats else None
    called = limits_of_calls(row, request, sampler, tokenizer, spec)
    if parts is not None:
        row.limits = row.limits and timed_limits(row.limits, parts)
        called = called and timed_limits(called, parts)
    gaps = GapTexts(tokenizer, row, stops, len(request.tokens)) if row.gaps else None
    row.cut = row.cut if gaps is None else gaps.cut
    divider = None if request.thinking is None else Divider(request.thinking)
    ends = () if row.gaps else stops
    text = AnswerText(tokenizer, ends) if divider is None else divider.text(tokenizer, ends)
    row.stopped = partial(_before_stop, tokenizer, ends, request.thinking) if ends else row.stopped
    unit = sampler.kept_unit(config, spec)
    kept = kept if unit == 1 or (kept is not None and kept.blocks and unit is not None) else None
    running = RunningProgram(row, spec, program_of(request, sampler, called))
    began = time.perf_counter()
    job = Job(row, running, text, kept, began, gaps=gaps, filled=filled, parts=parts, divider=divider, unit=unit or 1)
    job.layout = None if request.puzzle is None else GridLayout(request.puzzle)
    if called is not None and request.choosing is not None:
        job.most_cached = request.choosing.common(row.tokens)
    return job


def _before_stop(
    tokenizer: Tokenizer, stops: tuple[str, ...], thinking: Thinking | None, tokens: Sequence[int]
) -> int | None:
    """See :attr:`~dllm_plugins.decoding.row.Row.stopped`."""
    text = AnswerText(tokenizer, stops) if thinking is None else Divider(thinking).text(tokenizer, stops)
    text.push(tokens, last=False)
    return text.tokens_used(tokens) if text.stopped else None
