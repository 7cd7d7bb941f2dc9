"""Batches of which the reference records each row only up to the block that the batch is at."""

from typing import Any

import pytest

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.conformance.case import Setting
from dllm_plugins.conformance.compare import compare
from dllm_plugins.conformance.play import Play
from dllm_plugins.conformance.run import RowTrace

MASK = 99
SHORT, LONG = [1, 2, 3], [10, 11, 12, 13, 14]
#: What rows hold after each pass, in blocks of four: the short one fills a block more.
CANVASES = [
    [[1, 2, 3, MASK], [10, 11, 12, 13]],
    [[1, 2, 3, 4], [10, 11, 12, 13]],
    [[1, 2, 3, 4, MASK, MASK, MASK, MASK], [*LONG, MASK, MASK, MASK]],
    [[1, 2, 3, 4, 5, MASK, MASK, MASK], [*LONG, 15, MASK, MASK]],
    [[1, 2, 3, 4, 5, 6, 7, 8], [*LONG, 15, 16, 17]],
]


def judged(recorded: list[list[list[int]]], *, cuts: bool = True, long: Any = None) -> str:
    """What is wrong with two rows that went as recorded above, beside another record."""
    ours = ([canvas[0] for canvas in CANVASES], long or [canvas[1] for canvas in CANVASES[2:]])
    traces = [RowTrace(list(own), own[-1], passes, passes) for own, passes in zip(ours, (3, 2), strict=True)]
    config = SamplingConfig(mode="fast_dllm_v2", max_new_tokens=5)
    play = Play([Request(SHORT, config), Request(LONG, config)], per_change=True, rows_go_on=True, cuts=cuts)
    output = [canvas[-1] for canvas in ours]
    return compare(Setting({"canvases": recorded, "output": output}), play, traces, MASK)


def test_a_beginning_of_a_prompt_is_no_canvas() -> None:
    """The batch stands before the longer prompt's last block; where nothing is cut, the same is a miss."""
    assert judged(CANVASES) == ""
    assert "row 1: canvas 0" in judged(CANVASES, cuts=False)


@pytest.mark.parametrize(("step", "row", "position"), [(0, 1, 2), (1, 0, 3), (3, 1, 5), (2, 1, 4), (3, 0, 4)])
def test_what_can_be_compared_is(step: int, row: int, position: int) -> None:
    """Another token in any canvas, in a cut one too, is a miss of its row."""
    other = [[list(own) for own in canvas] for canvas in CANVASES]
    other[step][row][position] = 50
    assert judged(other).startswith(f"row {row}: canvas")


def test_a_canvas_that_the_reference_has_not_is_a_miss() -> None:
    """Behind the prompt nothing is left out."""
    more = [canvas[1] for canvas in CANVASES[2:]]
    more.insert(1, [*LONG, MASK, 16, MASK])
    assert judged(CANVASES, long=more).startswith("row 1: canvas 1")
