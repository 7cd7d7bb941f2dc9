"""Modes that take turns in one answer of mode `auto`: they give the same tokens, so which goes on is chosen anew.

Trying a mode so costs a few passes in place of a whole answer, and an answer is followed where drafts begin to be
worth more, or less, than in its beginning.
"""

from collections.abc import Mapping

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.engine.job import Job
from dllm_plugins.events import Stretch
from dllm_plugins.modes.base import Sampler
from dllm_plugins.routing.measured import Measured
from dllm_plugins.routing.router import Route
from dllm_plugins.routing.router import Router

#: A mode goes on for so many tokens at least.
PIECE = 16


def turning(modes: Mapping[str, Sampler], route: Route | None, spec: ModelSpec) -> dict[str, Sampler]:
    """The modes of a route that can go on in the middle of an answer; none unless all of them can."""
    if route is None or len(route.modes) == 1:
        return {}
    found = {mode: modes[spec.samplers.get(mode, mode)] for mode in route.modes}
    return found if all(sampler.resumes for sampler in found.values()) else {}


def take_turns(job: Job, router: Router, spec: ModelSpec, rows: int) -> None:
    """Where a piece of an answer has ended, choose what goes on; nothing is forwarded twice but what was not frozen.

    :param rows: that share the passes.
    """
    if not job.samplers or job.route is None or job.measured.tokens < PIECE or job.row.remaining < PIECE:
        return
    router.learn(job.route, job.measured)
    row, before, job.measured = job.row, job.route, Measured()
    job.route = router.go_on(before, len(row.tokens) - row.prompt, rows)
    if job.route is not before:
        begin, mode, why = job.route.turns[-1]
        model = spec.target or spec.name
        row.stretches = row.stretches or [Stretch(model, before.mode, 0, 0, before.why)]
        row.stretches.append(Stretch(model, mode, begin, begin, why))
        job.running.restart(job.samplers[mode].resume)
        job.resumed = True
