"""What rows answer for of shared passes, on passes whose seconds the test says."""

import pytest

from dllm_plugins.engine.charges import Charges


def test_a_row_pays_for_what_it_forwards() -> None:
    """A pass of 10 seconds and 2 more for each position, found from passes of several sizes."""
    charges = Charges()
    for rows in ([1, 1], [1, 5], [3, 3], [2, 8], [1, 1]):
        shares = charges.shares(rows, 10 + 2 * sum(rows))
        assert sum(shares) == pytest.approx(10 + 2 * sum(rows))
    assert charges.shares([1, 6], 24) == pytest.approx([5 + 2, 5 + 12])


def test_passes_of_one_size_are_shared_alike() -> None:
    """Nobody knows what a position costs then; and none is credited where more cost less."""
    charges = Charges()
    assert [charges.shares([1, 3], 8.0) for _ in range(3)] == [[4.0, 4.0]] * 3
    assert charges.shares([1, 9], 2.0) == pytest.approx([1.0, 1.0])
