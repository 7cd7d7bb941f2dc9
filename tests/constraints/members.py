"""Members of a language, found by walking its automaton at random."""

import random

import numpy as np

from dllm_plugins.constraints.automaton import DEAD
from dllm_plugins.constraints.automaton import START
from dllm_plugins.constraints.automaton import Automaton
from dllm_plugins.constraints.building import build
from dllm_plugins.constraints.nodes import Node


def members(node: Node, seed: int, count: int, longest: int = 120) -> list[str]:
    """Texts of a language; walks longer than `longest` bytes take the shortest way to an end."""
    automaton, rng = build(node), random.Random(seed)
    assert not automaton.empty
    left = _bytes_left(automaton)
    return [_member(automaton, left, rng, rng.randint(0, longest)) for _ in range(count)]


def _bytes_left(automaton: Automaton) -> list[int]:
    """How many bytes at least lead from each state to an end."""
    left = np.where(automaton.accepting, 0, 1 << 30)
    left[DEAD] = 1 << 30
    while True:
        found = np.minimum(left, left[automaton.table].min(axis=1) + 1)
        found[DEAD] = 1 << 30
        if (found == left).all():
            return [int(one) for one in left]
        left = found


def _member(automaton: Automaton, left: list[int], rng: random.Random, longest: int) -> str:
    state, text = START, bytearray()
    while not (automaton.accepting[state] and (len(text) >= longest or rng.random() < 0.1)):
        ways = [way for way in automaton.ranges[state] if left[way[2]] < 1 << 30]
        if len(text) >= longest:
            ways = [way for way in ways if left[way[2]] < left[state]]
        if not ways:
            break
        first, last, state = rng.choice(ways)
        text.append(rng.randint(first, last))
    return text.decode()
