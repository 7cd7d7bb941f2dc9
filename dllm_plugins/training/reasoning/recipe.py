"""Every number of a cell of the table, and the model it trains."""

from dataclasses import asdict
from dataclasses import dataclass
from typing import Any

from transformers import Qwen3ForCausalLM

from dllm_plugins.reasoning.task import Task
from dllm_plugins.training.body import config_of
from dllm_plugins.training.body import random_model

MASK, UNKNOWN = "[MASK]", "[UNK]"


@dataclass(frozen=True, slots=True)
class CellRecipe:
    """Sizes, steps and rates; all cells of a task have the same.

    The learning rate warms up, stays, and falls to 0 over the last `fall` of all steps.

    :param examples: of the data set, which is gone through again and again.
    :param block: positions denoised together, of method block.
    :param begin: the cell of the same folder whose weights are trained further; "" for random ones.
    """

    steps: int = 1000
    seed: int = 0
    examples: int = 100_000
    batch: int = 64
    width: int = 64
    inner: int = 176
    layers: int = 4
    heads: int = 4
    block: int = 2
    learning_rate: float = 3e-3
    warm_up: int = 100
    fall: float = 0.3
    weight_decay: float = 0.01
    look_every: int = 100
    begin: str = ""

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        left = (self.steps - step) / (self.fall * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warm_up, left)

    def as_json(self) -> dict[str, Any]:
        """By name."""
        return asdict(self)


def words_of(task: Task) -> tuple[str, ...]:
    """The vocabulary of a model; ids are places in it."""
    return (*task.vocabulary, MASK, UNKNOWN)


def model_config(recipe: CellRecipe, task: Task) -> dict[str, Any]:
    """The shape of the model, in Qwen3's words. A prompt and its answer fill the context, so an answer ends."""
    return config_of(recipe, len(words_of(task)), task.prompt + task.answer)


def new_model(recipe: CellRecipe, task: Task) -> Qwen3ForCausalLM:
    """A model with random weights; see :func:`random_model`."""
    return random_model(recipe, model_config(recipe, task))
