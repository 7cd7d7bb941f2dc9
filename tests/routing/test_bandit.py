"""Choices by measured speed, on a simulated machine: seconds are what the test says they are."""

from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence

import pytest

from dllm_plugins.routing.bandit import MOST_REGRET
from dllm_plugins.routing.bandit import TRIALS
from dllm_plugins.routing.bandit import Situation

MODES = ("speculative", "ar")


def run(
    situation: Situation, answers: int, rate: Callable[[str, int], float], modes: Sequence[str] = MODES
) -> list[str]:
    """The modes of so many answers of 50 tokens, one after another.

    :param rate: tokens a second of a mode at the n-th answer.
    """
    chosen = []
    for number in range(answers):
        mode, _ = situation.choose(modes)
        situation.tried(mode)
        situation.learn(mode, 50, 50 / rate(mode, number))
        chosen.append(mode)
    return chosen


@pytest.mark.parametrize("fast", MODES)
def test_the_fastest_is_found_and_regret_is_bounded(fast: str) -> None:
    """Each is tried in turns, then nearly all go to the faster; what that cost is told as it was."""
    situation = Situation()
    chosen = run(situation, 400, lambda mode, _: 30.0 if mode == fast else 20.0)
    assert set(chosen[:2]) == set(MODES)
    assert Counter(chosen)[fast] >= 385
    lost = sum(50 / 20 - 50 / 30 for mode in chosen if mode != fast)
    # What came before the fastest was known counts for nothing, as nobody knew of it.
    assert lost - TRIALS * (50 / 20 - 50 / 30) <= situation.regret + 1e-9
    assert situation.regret <= lost + 1e-9
    assert situation.regret <= MOST_REGRET * situation.seconds + TRIALS * 50 / 20


def test_a_machine_that_changes_is_followed() -> None:
    """A mode that becomes the faster one is measured again, and taken."""
    chosen = run(Situation(), 1200, lambda mode, number: 20.0 if (mode == "ar") == (number < 400) else 21.0)
    assert Counter(chosen[100:400]).most_common(1)[0][0] == "speculative"
    assert Counter(chosen[-200:]).most_common(1)[0][0] == "ar"


def test_the_best_mode_that_becomes_slow_is_left() -> None:
    """Its own answers tell."""

    def rate(mode: str, number: int) -> float:
        return 20.0 if mode == "speculative" else 10.0 if number >= 100 else 21.0

    chosen = run(Situation(), 300, rate)
    assert Counter(chosen[60:100])["ar"] > 30
    assert Counter(chosen[-100:])["speculative"] > 90


def test_others_do_not_try_the_same_at_once() -> None:
    """Ten choices before the first answer ends: each mode is tried as often as any, and no more than that."""
    situation, chosen = Situation(), []
    for _ in range(10):
        mode, _why = situation.choose(MODES)
        situation.tried(mode)
        chosen.append(mode)
    assert chosen == ["speculative", "ar"] * TRIALS + ["speculative"] * 4


def test_one_mode_needs_no_measure() -> None:
    """And says so."""
    assert Situation().choose(("wino",)) == ("wino", "no other mode gives the same text")
