"""The simulation of many replicas: what can be reckoned by hand, and what must follow from what."""

from dataclasses import replace

import pytest

simpy = pytest.importorskip("simpy", reason="the simulation needs simpy: pip install 'dllm-plugins[bench]'")

import scale_simulation as scale  # noqa: E402  which imports it

COSTS = scale.Costs(base=0.04, row=0.006, position=5e-6, prompt=0.005, yields=1.6)
SETTING = scale.Setting(replicas=8, load=0.2, policy="prefix")


def test_one_request_waits_for_its_prompt_and_takes_its_passes() -> None:
    clock, figures = simpy.Environment(), scale.Figures()
    replica = scale.Replica(clock, COSTS, SETTING, figures)
    row = scale.Row(0, 300, 0.0, 16.0, 0.0, clock.event())
    replica.add(row)
    clock.run(until=row.done)
    # Two passes read the prompt, a slice each; the third one gives the first token, and ten all of them.
    reading, writing = 2 * 0.04 + 300 * 0.005, 0.04 + 0.006
    assert row.first == pytest.approx(reading + writing, abs=301 * 5e-6)
    assert clock.now == pytest.approx(reading + 10 * writing, abs=10 * 320 * 5e-6)
    assert (figures.prompts, figures.cached) == (300, 0)


def test_the_same_seed_gives_the_same_figures() -> None:
    assert scale.simulate(COSTS, SETTING) == scale.simulate(COSTS, SETTING)
    assert scale.simulate(COSTS, SETTING) != scale.simulate(COSTS, replace(SETTING, seed=1))


def test_conversations_find_their_prefix_where_they_were() -> None:
    """And nothing where nothing is kept, which costs passes."""

    def cached(figures: scale.Figures) -> float:
        return figures.cached / figures.prompts

    own = scale.simulate(COSTS, SETTING)
    anywhere = scale.simulate(COSTS, replace(SETTING, policy="random"))
    nothing = scale.simulate(COSTS, replace(SETTING, kept=0))
    assert cached(own) > cached(anywhere) + 0.1
    assert cached(nothing) == 0.0
    assert sum(own.waiting) / len(own.waiting) < sum(nothing.waiting) / len(nothing.waiting)


def test_shortest_queues_of_a_moment_ago_draw_a_herd() -> None:
    def waits(policy: str) -> float:
        found = scale.simulate(COSTS, replace(SETTING, replicas=60, policy=policy, stale=2.0))
        return sorted(found.waiting)[len(found.waiting) * 95 // 100]

    assert waits("shortest") > 1.5 * waits("two")
