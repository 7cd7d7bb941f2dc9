"""Path finding as a puzzle: edges, a start and a goal go in, the path from one to the other comes out."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from dllm_plugins.errors import RequestError
from dllm_plugins.reasoning.path import ANSWERS
from dllm_plugins.reasoning.path import ASKS
from dllm_plugins.reasoning.path import FROM
from dllm_plugins.reasoning.path import ways
from dllm_plugins.text.puzzles import RIGHT
from dllm_plugins.text.puzzles import UNFINISHED

_SUCH = "write edges, then ?, start and goal, such as 'a>b b>c d>b b>e ? a c'"
_EDGE = re.compile(r"([^\s>?,]+)\s*>\s*([^\s>?,]+)")
#: What separates edges.
_APART = re.compile(r"[\s,]+")


@dataclass(frozen=True, slots=True)
class RouteQuestion:
    """A question for the way from a start to a goal.

    :param names: of the nodes, by the number that the model knows each by.
    :param edges: pairs of names.
    :param nodes: how many a path has.
    """

    names: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]
    start: str
    goal: str
    nodes: int

    @property
    def prompt(self) -> str:
        """With numbers for names."""
        number = {name: str(place) for place, name in enumerate(self.names)}
        edges = [f"{number[before]}{FROM} {number[after]}" for before, after in self.edges]
        return " ".join([*edges, ASKS, number[self.start], number[self.goal], ANSWERS])

    @property
    def length(self) -> int:
        """A token a node, and the end."""
        return self.nodes + 1

    def laid_out(self, text: str) -> str:
        """Names for numbers; what is no number of a node stays as it is."""
        return re.sub(r"\d+", lambda found: self._name(found[0]), text)

    def _name(self, number: str) -> str:
        return self.names[int(number)] if int(number) < len(self.names) else number

    def verdict(self, text: str) -> str:
        """Any path is right that runs along edges from start to goal and visits no node twice."""
        path = self.laid_out(text).split()
        fault = next(self._faults(path), None)
        if fault is None and path[-1:] == [self.goal]:
            return RIGHT
        if fault is None and len(path) < self.nodes:
            return f"{UNFINISHED}: {len(path)} of {self.nodes} nodes"
        return f"wrong: {fault or f'it ends at {path[-1]}, not at {self.goal}'}"

    def _faults(self, path: list[str]) -> Iterator[str]:
        if path and path[0] != self.start:
            yield f"it begins at {path[0]}, not at {self.start}"
        for before, after in itertools.pairwise(path):
            if (before, after) not in self.edges:
                yield f"no edge leads from {before} to {after}"
        for name in path:
            if path.count(name) > 1:
                yield f"it visits {name} twice"


@dataclass(frozen=True, slots=True)
class RouteReader:
    """Makes a puzzle of a text.

    :param nodes: of a path, which the model was trained for: two such paths that cross at one node.
    """

    nodes: int

    def __call__(self, text: str) -> RouteQuestion:
        """Read edges, `?`, start and goal. Nodes are called what one likes; edges stand in any order.

        :raises RequestError: for what is no such question, for other sizes, and where no path leads to the goal.
        """
        listed, asks, ends = text.strip().removesuffix(ANSWERS).partition(ASKS)
        edges = tuple(_EDGE.findall(listed))
        if not asks or not edges or _APART.sub("", _EDGE.sub("", listed)):
            raise RequestError(f"{text!r} is no question for a path; {_SUCH}")
        wanted = [name for name in _APART.split(ends) if name]
        if len(wanted) != 2:
            raise RequestError(f"{ends.strip()!r} behind the ? is not a start and a goal; {_SUCH}")
        names = tuple(dict.fromkeys(itertools.chain.from_iterable(edges)))
        for name in wanted:
            if name not in names:
                raise RequestError(f"{name!r} is at no edge; ask for a path between nodes of the edges")
        start, goal = wanted
        self._check(edges, len(names), start, goal)
        return RouteQuestion(names, edges, start, goal, self.nodes)

    def _check(self, edges: tuple[tuple[str, str], ...], names: int, start: str, goal: str) -> None:
        count, distinct = 2 * (self.nodes - 1), 2 * self.nodes - 1
        if (len(edges), names) != (count, distinct):
            raise RequestError(
                f"this graph has {len(edges)} edges and {names} nodes, and the model was trained for two paths of "
                f"{self.nodes} nodes that cross at one: give {count} edges between {distinct} nodes"
            )
        found = ways(set(edges), start, goal)
        if not found:
            raise RequestError(
                f"no path leads from {start} to {goal}; look the edges over, each goes from left to right"
            )
        if self.nodes not in map(len, found):
            raise RequestError(
                f"the path from {start} to {goal} has {len(found[0])} nodes, and the model was trained for "
                f"{self.nodes}; ask for the two ends of a path"
            )
