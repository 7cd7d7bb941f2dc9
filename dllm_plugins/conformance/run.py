"""Run a play and write down what happened, pass by pass, from the engine's events alone."""

from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace

from dllm_plugins.config import SamplingConfig
from dllm_plugins.conformance.play import Play
from dllm_plugins.conformance.play import whole_steps
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Finish
from dllm_plugins.models import Model


@dataclass
class RowTrace:
    """One row: its canvas before the first pass and after every pass, and how it ended.

    :param text: prompt and answer, the end-of-text token included.
    :param passes: how many the row took part in.
    :param calls: of the model, of all kinds, as the usage counts them.
    :param kinds: these calls by kind.
    """

    canvases: list[list[int]]
    text: list[int] = field(default_factory=list)
    passes: int = 0
    calls: int = 0
    kinds: dict[str, int] = field(default_factory=dict)


def run(model: Model, play: Play) -> list[RowTrace]:
    """Decode all rows together, twice if the length of one depends on the others.

    :raises DllmError: if a request is refused.
    """
    found = _decode(model, play)
    if play.together:
        mask, longest = model.denoiser.spec.mask_id, 1
        for request, trace in zip(play.requests, found, strict=True):
            longest = max(longest, sum(token != mask for token in trace.canvases[-1]) - len(request.tokens))
        requests = [
            replace(request, stop_ids=frozenset(), config=_of_length(request.config, longest))
            for request in play.requests
        ]
        found = _decode(model, replace(play, requests=requests))
    return found if play.arrange is None else play.arrange(found)


def _of_length(config: SamplingConfig, new: int) -> SamplingConfig:
    """The same for another number of new tokens, with as many passes for each block as before."""
    length = config.block_length
    if config.steps is None or length is None:
        return config.with_options(max_new_tokens=new)
    each = config.steps // -(-config.max_new_tokens // length)
    return config.with_options(max_new_tokens=new, steps=whole_steps(each, new, length))


def _decode(model: Model, play: Play) -> list[RowTrace]:
    engine, mask = model.engine(), model.denoiser.spec.mask_id
    traces: dict[int, RowTrace] = {}
    final: dict[int, list[int]] = {}
    for row, request in enumerate(play.requests):
        number = engine.admit(request)
        final[number] = list(request.tokens)
        initial = [*request.tokens, *[mask] * request.config.max_new_tokens, *request.suffix]
        first = list(play.initial[row]) if play.initial else initial
        traces[number] = RowTrace([first])
        if mask in request.tokens:
            del final[number][request.tokens.index(mask) :]
    while engine.active:
        for number in engine.active:
            traces[number].passes += 1
        for event in engine.step():
            trace, known = traces[event.row], final[event.row]
            if isinstance(event, Commit):
                known += event.tokens
            elif isinstance(event, Draft):
                canvas = (*event.tokens, *event.rest)
                trace.canvases.append([*known, *(mask if token is None else token for token in canvas)])
            elif isinstance(event, Finish):
                _finish(trace, known, event, play.untrimmed, mask)
    return [traces[number] for number in sorted(traces)]


def _finish(trace: RowTrace, known: list[int], event: Finish, untrimmed: bool, mask: int) -> None:
    canvas = [*known, *(mask if token is None else token for token in event.rest)]
    trace.canvases.append(canvas)
    trace.text = canvas if untrimmed else canvas[: len(known) + (event.stop_token is not None)]
    trace.calls, trace.kinds = event.usage.total_passes, dict(event.usage.passes)
