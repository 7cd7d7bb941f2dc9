"""Choices by measured speed, on a simulated machine: seconds are what the test says they are."""

from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence
from random import Random

import pytest

from dllm_plugins.routing.bandit import MOST_REGRET
from dllm_plugins.routing.bandit import TRIALS
from dllm_plugins.routing.bandit import Pool
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


def test_a_new_situation_begins_with_what_wider_ones_know() -> None:
    """The mode that is fastest elsewhere comes first, the other is tried once, and a hopeless one never."""
    wider = Pool()
    for mode, seconds in (("speculative", 2.0), ("ar", 1.0), ("slow", 9.0)) * TRIALS:
        wider.tried(mode)
        wider.learn(mode, 50, seconds)
    situation, chosen = Situation(), []
    for _ in range(40):
        mode, _why = situation.choose(("speculative", "ar", "slow"), [wider])
        chosen.append(mode)
        for pool in (wider, situation):
            pool.tried(mode)
            # Here everything takes three times as long, and `speculative` is the faster one.
            pool.learn(mode, 50, {"speculative": 2.0, "ar": 3.0, "slow": 27.0}[mode])
    assert chosen[:2] == ["ar", "speculative"]
    assert Counter(chosen)["speculative"] >= 37
    assert "slow" not in chosen


def test_wider_situations_tell_how_modes_compare_and_not_how_fast_they_are() -> None:
    """Paces of what was not measured are scaled; what was, leaves them as tokens come in."""
    pool = Pool()
    assert pool.paces({"a": 0.1, "b": 0.2}) == {"a": 0.1, "b": 0.2}
    pool.learn("a", 320, 64.0)
    found = pool.paces({"a": 0.1, "b": 0.2})
    assert found["a"] == pytest.approx(0.2)
    assert found["b"] == pytest.approx(0.4)


def test_what_could_not_be_measured_is_tried_again() -> None:
    """An answer that ended at once was no trial."""
    situation = Situation()
    situation.tried("speculative")
    situation.untried("speculative")
    assert situation.choose(MODES)[0] == "speculative"


def test_a_bag_of_kinds_is_answered_nearly_as_fast_as_by_the_best_mode_of_each() -> None:
    """Twenty-four answers of each kind, of four pieces that a noisy machine measures: each kind, and all of them."""
    rates = {
        "chat": (31.0, 30.0),
        "copying": (70.0, 30.0),
        "code": (38.0, 30.0),
        "arithmetic": (22.0, 30.0),
        "constraint": (45.0, 28.0),
    }
    luck, wider = Random(4), Pool()
    situations = {kind: Situation() for kind in rates}
    taken = dict.fromkeys(rates, 0.0)
    for answer in range(24 * len(rates)):
        kind = [*rates][answer % len(rates)]
        for _ in range(4):
            mode, _why = situations[kind].choose(MODES, [wider])
            seconds = 16 / rates[kind][MODES.index(mode)]
            taken[kind] += seconds
            for pool in (wider, situations[kind]):
                pool.tried(mode)
                pool.learn(mode, 16, seconds * luck.uniform(0.85, 1.25))
    tokens = 24 * 4 * 16
    for kind, (fast, slow) in rates.items():
        assert tokens / max(fast, slow) >= 0.97 * taken[kind], kind
    for place in range(len(MODES)):
        assert sum(taken.values()) < sum(tokens / own[place] for own in rates.values())
