"""Minimal planning: find the way from a start to a goal where two paths cross (arXiv 2410.14157).

Two paths of seven nodes share one node, so each of its two ways on looks right, and only one leads to
the goal. A prompt lists the twelve edges in random order, then start and goal; the answer is the path.
Left to right, the choice comes before the goal is in sight. Rules as in `synthetic_graph.py` of a fork of
HKUNLP/diffusion-vs-ar (diego-arapovic), scaled down: a token a node. Where an edge begins is a word of its own, `3>`,
since a model that sees both ways and knows distances only could not tell it from where one ends.
"""

import itertools
import random
from dataclasses import dataclass

from dllm_plugins.errors import RequestError
from dllm_plugins.reasoning.task import Example

ASKS, ANSWERS, END = "?", "=", "."
#: Behind a node from which an edge goes.
FROM = ">"
_SUCH = "such as '3> 7 7> 1 ? 3 1'"


@dataclass(frozen=True, slots=True)
class PathTask:
    """Paths of `nodes` nodes."""

    nodes: int = 7
    scale: str = "edges from the start to the branch; as many as the path has where there is none"

    @property
    def name(self) -> str:
        """Path as published, path5 for five nodes."""
        return "path" if self.nodes == 7 else f"path{self.nodes}"

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Nodes, nodes with an edge, what stands around start and goal, and the end of an answer."""
        nodes = [str(node) for node in range(2 * self.nodes)]
        return (*nodes, *(node + FROM for node in nodes), ASKS, ANSWERS, END)

    @property
    def prompt(self) -> int:
        """Two words an edge, and four for the question."""
        return 4 * self.nodes

    @property
    def answer(self) -> int:
        """The nodes and the end."""
        return self.nodes + 1

    def draw(self, luck: random.Random) -> Example:
        """Two crossing paths; the first is the answer."""
        names = luck.sample(range(2 * self.nodes), 2 * self.nodes)
        path, other = names[: self.nodes], names[self.nodes :]
        crossing = luck.randrange(self.nodes)
        other[crossing] = path[crossing]
        edges = [edge for way in (path, other) for edge in itertools.pairwise(way)]
        luck.shuffle(edges)
        words = [word for before, after in edges for word in (f"{before}{FROM}", str(after))]
        question = (*words, ASKS, str(path[0]), str(path[-1]), ANSWERS)
        return Example(question, (*map(str, path), END), crossing, f"{path} {other}")

    def right(self, prompt: tuple[str, ...], answer: tuple[str, ...]) -> bool:
        """Whether it runs along edges that are there, from the start to the goal, visits no node twice, and ends."""
        edges, start, goal = read(prompt)
        if not answer or answer[-1] != END:
            return False
        path = answer[:-1]
        steps = set(itertools.pairwise(path))
        return path[:1] == (start,) and path[-1:] == (goal,) and steps <= edges and len(set(path)) == len(path)


def read(prompt: tuple[str, ...]) -> tuple[set[tuple[str, str]], str, str]:
    """The edges, start and goal of a prompt.

    :raises RequestError: for what is no such prompt.
    """
    words = list(prompt)
    if words[-1:] == [ANSWERS]:
        words.pop()
    if len(words) < 5 or words[-3] != ASKS or len(words) % 2 == 0:
        raise RequestError(f"{' '.join(prompt)!r} is no path question; give edges, then ?, start and goal, {_SUCH}")
    befores, afters = words[:-3:2], words[1:-3:2]
    for word in befores:
        if not (word.endswith(FROM) and word[:-1].isdecimal()):
            raise RequestError(f"{word!r} begins no edge; write edges with {FROM}, {_SUCH}")
    for word in (*afters, *words[-2:]):
        if not word.isdecimal():
            raise RequestError(f"{word!r} is no node; nodes are numbers, {_SUCH}")
    edges = {(before[:-1], after) for before, after in zip(befores, afters, strict=True)}
    return edges, words[-2], words[-1]


def ways(edges: set[tuple[str, str]], start: str, goal: str) -> list[tuple[str, ...]]:
    """Every path from start to goal that visits no node twice."""
    found, open_ways = list[tuple[str, ...]](), list[tuple[str, ...]]([(start,)])
    while open_ways:
        way = open_ways.pop()
        if way[-1] == goal:
            found.append(way)
            continue
        open_ways += [(*way, after) for before, after in edges if before == way[-1] and after not in way]
    return found
