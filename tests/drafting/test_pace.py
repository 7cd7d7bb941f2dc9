"""How many drafts another model is asked for: what the clock says decides, and little is lost where none pay."""

import pytest

from dllm_plugins.drafting.pace import Pace


def decoded(draft: float, accepted: int, tokens: int = 400) -> tuple[float, int]:
    """Seconds that an answer takes where a pass of the target takes one, and how many drafts were made.

    :param draft: seconds of the drafter's pass.
    :param accepted: drafts that are right, of as many as there are.
    """
    pace, seconds, made, drafts = Pace(4), 0.0, 0, 0
    while made < tokens:
        size = pace.length
        taken, right = 1.0 + (draft if size else 0.0), min(size, accepted)
        pace.took(size, right, taken)
        seconds, made, drafts = seconds + taken, made + right + 1, drafts + size
    return seconds, drafts


@pytest.mark.parametrize(("draft", "accepted", "most"), [(0.5, 4, 0.4), (0.5, 1, 0.85), (1.0, 0, 1.08), (3.0, 2, 1.08)])
def test_drafts_are_made_where_they_pay(draft: float, accepted: int, most: float) -> None:
    """Nearly as fast as drafts always, or none, would be; `most` seconds a token."""
    seconds, _ = decoded(draft, accepted)
    assert seconds / 400 < most


def test_no_more_drafts_than_are_accepted_and_one() -> None:
    """Of sixteen right ones all are made in the end, of one two, and where none is right one at a time."""
    pace = Pace(4)
    made = 0
    for _ in range(200):
        made = max(made, pace.length)
        pace.took(pace.length, pace.length, 0.1 if pace.length else 1.0)
    assert max(pace.length, made) == 16
    pace = Pace(4)
    for _ in range(31):
        pace.took(pace.length, min(1, pace.length), 0.1 if pace.length else 1.0)
    assert pace.length == 2
    assert decoded(1.0, 0)[1] < 60
