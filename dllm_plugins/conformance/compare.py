"""What we produced beside what was recorded. The only place that reads expected values."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from dllm_plugins.conformance.case import Setting
from dllm_plugins.conformance.play import Play
from dllm_plugins.conformance.run import RowTrace
from dllm_plugins.kept_prefixes import common

Verdict = Literal["REPRODUCED", "CORRECTED", "REFUSED", "MISSED"]
#: Kinds of the references' passes that only fill a cache; ours do that in passing.
CACHE_ONLY = frozenset({"store", "prefill", "prefix", "commit"})


@dataclass(frozen=True)
class Result:
    """One line of the report."""

    case: str
    setting: str
    verdict: Verdict
    detail: str


def strip(canvas: Sequence[int], mask: int | None) -> tuple[int, ...]:
    """Without the open positions at its end: references differ in how many they append when."""
    end = len(canvas)
    while end and canvas[end - 1] == mask:
        end -= 1
    return tuple(canvas[:end])


def distinct(canvases: Sequence[Sequence[int]], mask: int | None) -> list[tuple[int, ...]]:
    """Without passes that changed nothing."""
    return [canvas for canvas, _ in groupby(strip(canvas, mask) for canvas in canvases)]


def compare(setting: Setting, play: Play, traces: Sequence[RowTrace], mask: int | None) -> str:
    """What is wrong, in words; empty if everything reproduces."""
    for row, trace in enumerate(traces):
        expected = list(setting.raw["output"][row])
        found = play.lay_out(row, trace.text, whole=False)
        if found != expected:
            return f"row {row}: output differs from position {common(found, expected)}"
        whole = (play.own(row, canvas[row]) for canvas in setting.raw["canvases"])
        recorded = [canvas for canvas in whole if play.reached(row, canvas)]
        length = min(max(map(len, trace.canvases)), max(map(len, recorded)))
        ours = distinct([canvas[:length] for canvas in trace.canvases], mask)
        theirs = distinct([canvas[:length] for canvas in recorded], mask)
        wrong = _first_difference(ours, theirs[: len(ours)] if play.rows_go_on else theirs)
        if wrong is not None:
            return f"row {row}: canvas {wrong} of {len(recorded)} differs"
    miscounted = "; ".join(filter(None, map(_counted, traces)))
    if miscounted:
        return miscounted
    if "tokens_per_forward" in setting.raw:
        return _passes_of_rows(setting, play, traces)
    if play.per_change:
        return _passes_per_change(play, traces, mask)
    saved = max(trace.kinds.get(play.stored or "", 0) for trace in traces)
    return _passes(setting, max(trace.passes for trace in traces), len(distinct_steps(setting, play, mask)) - 1, saved)


def _counted(trace: RowTrace) -> str:
    """What is wrong with the usage: a call a pass, and one more at most where one was split to fill the cache."""
    more = trace.kinds.get("prefill", 0) + trace.kinds.get("freeze", 0)
    if trace.passes <= trace.calls <= trace.passes + more:
        return ""
    return f"the usage counts {trace.calls} calls in {trace.passes} passes"


def _first_difference(ours: list[tuple[int, ...]], theirs: list[tuple[int, ...]]) -> int | None:
    """Where two runs part, if they do."""
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        if mine != other:
            return number
    return None if len(ours) == len(theirs) else min(len(ours), len(theirs))


def distinct_steps(setting: Setting, play: Play, mask: int | None) -> list[list[tuple[int, ...]]]:
    """The recorded canvases of all rows together, without passes that changed nothing in any."""
    steps = [
        [strip(play.own(row, canvas), mask) for row, canvas in enumerate(step)] for step in setting.raw["canvases"]
    ]
    return [step for step, _ in groupby(steps)]


def _passes_of_rows(setting: Setting, play: Play, traces: Sequence[RowTrace]) -> str:
    """Each row's own passes, where the reference counts them: as new tokens, padding left out, per pass."""
    prompt = len(setting.inputs["input_ids"][0])
    for row, (trace, rate) in enumerate(zip(traces, setting.raw["tokens_per_forward"], strict=True)):
        tokens = sum(token != play.rest for token in setting.raw["output"][row][prompt:])
        if trace.passes != round(tokens / rate):
            return f"row {row}: {trace.passes} passes for {round(tokens / rate)}"
    return ""


def _passes_per_change(play: Play, traces: Sequence[RowTrace], mask: int | None) -> str:
    """At most one pass per change of a row's own canvas, beside those of the kind that is stored."""
    for row, trace in enumerate(traces):
        changes, stored = len(distinct(trace.canvases, mask)) - 1, trace.kinds.get(play.stored or "", 0)
        if trace.passes > changes + stored:
            return f"row {row}: {trace.passes} passes for {changes} changes"
    return ""


def _passes(setting: Setting, ours: int, needed: int, saved: int) -> str:
    """As many as the reference; without those that only fill a cache, `saved` at most; or one per change."""
    theirs = int(setting.raw["forwards"])
    kinds = setting.raw.get("forward_kinds") or []
    only_cache = sum(kind in CACHE_ONLY for kind in kinds)
    if ours <= theirs <= ours + saved:
        return ""
    if ours in (theirs, theirs - only_cache) or (ours < theirs and ours == needed):
        return ""
    return f"{ours} passes for {theirs} ({only_cache} of them only fill the cache, {needed} change the canvas)"
