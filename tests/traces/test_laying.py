"""What lays an answer out stands behind its positions in every frame, and nothing else is changed."""

import pytest

from dllm_plugins.traces.frames import Cell
from dllm_plugins.traces.frames import Frame
from dllm_plugins.traces.laying import laid_out

OPEN = Cell()
FRAMES = (
    Frame(1, (OPEN, Cell("b", "committed", 0.5, 1), OPEN)),
    Frame(2, (Cell("a", "final"), Cell("b", "final"), Cell("c", "final"), Cell("</s>", "final", special=True))),
)


def test_breaks_stand_at_open_positions_too() -> None:
    """As far as a frame goes."""
    found = laid_out(FRAMES, "a\nb-c")
    assert [[cell.text for cell in frame.cells] for frame in found] == [["\n", "b-", ""], ["a\n", "b-", "c", "</s>"]]
    assert [cell.state for cell in found[0].cells] == ["open", "committed", "open"]


@pytest.mark.parametrize("text", ["abc", " abc", "ac", "", "abcd", "a b"])
def test_other_texts_change_nothing(text: str) -> None:
    """Those of the tokens, and those that are not told apart by them."""
    assert laid_out(FRAMES, text) == FRAMES
    assert laid_out((), text) == ()


def test_a_special_token_within_the_answer_changes_nothing() -> None:
    """Places behind it would be others."""
    frames = (Frame(1, (Cell("<x>", "final", special=True), Cell("a", "final"), Cell("b", "final"))),)
    assert laid_out(frames, "a\nb") == frames
