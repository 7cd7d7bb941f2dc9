"""Who sees whom in a pass, and which segments are forwarded together."""

from collections.abc import Sequence

import pytest
import torch

from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.visibility import additive
from dllm_plugins.denoisers.visibility import linked
from dllm_plugins.denoisers.visibility import visible

Behind = tuple[tuple[int, int], ...]


def segment(name: int, behind: Behind = (), row: int = 1) -> Segment:
    """Two tokens that say which segment it is."""
    return Segment(row, [name, name], [0, 1], behind=behind)


def shown(segments: Sequence[Segment]) -> list[list[tuple[int, Behind]]]:
    """Calls as names, each with what it is behind, counted in its call."""
    return [[(item.tokens[0], item.behind) for item in call] for call in linked(segments)]


def test_who_sees_whom() -> None:
    """Two kept keys, a segment in two groups, and a causal one behind its first three tokens."""
    first = Segment(1, [5, 6, 7, 8], range(4), groups=[0, 0, 1, 1])
    second = Segment(1, [9, 10], [4, 5], behind=((0, 3),))
    expected = [
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0, 1, 0],
        [1, 1, 1, 1, 1, 0, 1, 1],
    ]
    assert visible([first, second], 2).int().tolist() == expected


def test_what_is_behind_nothing_begins_a_call() -> None:
    """Two canvases of a row, another row, and a context with two groups behind it."""
    segments = [segment(1), segment(2), segment(3, row=2), segment(4), segment(5, ((0, 2),)), segment(6, ((0, 1),))]
    assert shown(segments) == [[(1, ())], [(2, ())], [(3, ())], [(4, ()), (5, ((0, 2),)), (6, ((0, 1),))]]


@pytest.mark.parametrize(
    ("behind", "calls"),
    [
        (((1, 2),), [[(1, ())], [(2, ()), (3, ((0, 2),))]]),
        (((0, 2),), [[(1, ()), (2, ()), (3, ((0, 2),))]]),
        (((0, 1), (1, 2)), [[(1, ()), (2, ()), (3, ((0, 1), (1, 2)))]]),
    ],
)
def test_a_rows_segments_are_counted_from_its_first(behind: Behind, calls: list[list[tuple[int, Behind]]]) -> None:
    """Behind the second one, behind the first over the second one's head, and behind both."""
    assert shown([segment(1), segment(2), segment(3, behind)]) == calls


def test_calls_that_join_keep_what_they_saw() -> None:
    """A last segment looks back at the first one, over a call that had a context of its own."""
    segments = [segment(1), segment(2), segment(3, ((1, 2),)), segment(4, ((0, 2), (2, 1)))]
    (call,) = linked(segments)
    assert [item.behind for item in call] == [(), (), ((1, 2),), ((0, 2), (2, 1))]
    assert visible(call, 0)[6:].int().tolist() == [[1, 1, 0, 0, 1, 0, 1, 0], [1, 1, 0, 0, 1, 0, 1, 1]]


def test_additive_masks() -> None:
    """Nothing where a key is seen; one dimension more, for the heads."""
    seen = torch.tensor([[True, False], [True, True]])
    mask = additive(seen, torch.bfloat16)
    assert mask.shape == (1, 2, 2)
    assert mask.dtype == torch.bfloat16
    assert mask[0].eq(0).tolist() == seen.tolist()
    assert mask[0, 0, 1] == torch.finfo(torch.bfloat16).min
