"""Decode held-out questions through the engine, in every way that fits, and check the answers."""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dllm_plugins.models import Model
from dllm_plugins.models import load_model
from dllm_plugins.reasoning import TASKS
from dllm_plugins.reasoning.task import Example
from dllm_plugins.reasoning.task import Task
from dllm_plugins.reasoning.task import examples
from dllm_plugins.request import Request
from dllm_plugins.training.reasoning.data import TESTED
from dllm_plugins.training.reasoning.data import in_order
from dllm_plugins.training.reasoning.data import order_of
from dllm_plugins.training.reasoning.data import prompt_of
from dllm_plugins.training.reasoning.families import register
from dllm_plugins.training.reasoning.methods import METHODS
from dllm_plugins.training.reasoning.recipe import words_of
from dllm_plugins.training.reasoning.ways import Way
from dllm_plugins.training.reasoning.ways import ways_of

#: Standard deviations of a 95 % interval.
_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Score:
    """How one way did with one model.

    :param right: answers that the checker accepts, by level.
    :param asked: questions, by level.
    :param passes: passes an answer took, on average.
    """

    right: dict[int, int]
    asked: dict[int, int]
    passes: float

    def share(self) -> float:
        """The share that is right."""
        return sum(self.right.values()) / sum(self.asked.values())


def wilson(right: int, asked: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    share, more = right / asked, _Z**2 / asked
    middle = (share + more / 2) / (1 + more)
    half = _Z / (1 + more) * math.sqrt(share * (1 - share) / asked + more / (4 * asked))
    return max(0.0, middle - half), min(1.0, middle + half)


def tested(task: Task, count: int) -> list[Example]:
    """The held-out questions that all are asked; none of training, and none whose loss was watched in it."""
    return list(islice(examples(task, TESTED, test=True), count))


def score(model: Model, task: Task, order: Sequence[int], asked: Sequence[Example], way: Way) -> Score:
    """Decode and check.

    :param order: where each written word stands in the answer.
    """
    words = words_of(task)
    ids = {word: number for number, word in enumerate(words)}
    requests = [Request([ids[word] for word in prompt_of(example, task)], way.config) for example in asked]
    finished = model.engine().generate(requests)
    right, count = defaultdict[int, int](int), defaultdict[int, int](int)
    for example, finish in zip(asked, finished, strict=True):
        ended = () if finish.stop_token is None else (finish.stop_token,)
        said = in_order([words[token] for token in (*finish.tokens, *ended)], order)
        count[example.level] += 1
        right[example.level] += task.right(example.prompt, said)
    passes = sum(finish.usage.total_passes for finish in finished) / len(finished)
    return Score(dict(right), dict(count), passes)


def measure(folder: Path, count: int) -> list[dict[str, Any]]:
    """A line for every way to decode the model in a cell's folder, also written to `scores.json` there."""
    register()
    about = json.loads((folder / "model" / "cell.json").read_text())
    task, method = TASKS[about["task"]], METHODS[about["method"]]
    model = load_model(str(folder / "model"), dtype="float32", device="cpu", batch_invariant=False)
    asked, found = tested(task, count), list[dict[str, Any]]()
    trained = about["method"] + (f", from {about['begin']}" if about["begin"] else "")
    for way in ways_of(method.kind, task.answer):
        scored = score(model, task, order_of(method, task), asked, way)
        line = {"task": task.name, "seed": about["seed"], "method": trained, "way": way.name, "asked": way.passes}
        found.append({**line, "passes": scored.passes, "right": scored.right, "of": scored.asked})
        print(f"{trained}, {way.name}, {scored.passes:.1f} passes: {scored.share():.1%}", flush=True)
    (folder / "scores.json").write_text(json.dumps(found, indent=1) + "\n")
    return found
