"""The data set of a task as tensors of token ids, made once and kept in a file."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from dllm_plugins.errors import OptionError
from dllm_plugins.files.whole import beside
from dllm_plugins.reasoning.task import Example
from dllm_plugins.reasoning.task import Task
from dllm_plugins.reasoning.task import examples
from dllm_plugins.training.reasoning.methods import Method
from dllm_plugins.training.reasoning.recipe import UNKNOWN
from dllm_plugins.training.reasoning.recipe import words_of

#: Seeds of the held-out side: looked at in training, and measured on afterwards.
WATCHED, TESTED = 1, 2


@dataclass(frozen=True, slots=True)
class Data:
    """Prompts int64 [N, P] and answers int64 [N, A]."""

    prompts: Tensor
    answers: Tensor

    def rows(self, index: Tensor) -> "Data":
        """Some of them."""
        return Data(self.prompts[index], self.answers[index])

    def __len__(self) -> int:
        return len(self.prompts)


def order_of(method: Method, task: Task) -> list[int]:
    """Where each written word of an answer stands in the answer. The last word of a path, its end, stays last.

    "shuffled" is one random order for all.

    :raises OptionError: for another order than forwards where an answer may be shorter: its end would be written first.
    """
    if method.order != "forward" and len(task.draw(random.Random(0)).answer) != task.answer:
        raise OptionError(
            f"answers of {task.name} are not of one length and can only be written forwards; use method ar"
        )
    end = 0 if task.prompt == task.answer else 1
    inner = list(range(task.answer - end))
    if method.order == "reversed":
        inner.reverse()
    if method.order == "shuffled":
        generator = torch.Generator().manual_seed(0)
        inner = torch.randperm(len(inner), generator=generator).tolist()
    return [*inner, *range(task.answer - end, task.answer)]


def in_order(words: Sequence[str], order: Sequence[int]) -> tuple[str, ...]:
    """Written words as the answer they are; as they stand if they are not as many."""
    if len(words) != len(order):
        return tuple(words)
    return tuple(word for _, word in sorted(zip(order, words, strict=True)))


def prompt_of(example: Example, task: Task) -> tuple[str, ...]:
    """A prompt as long as the longest: shorter ones begin with words that say nothing."""
    return (UNKNOWN,) * (task.prompt - len(example.prompt)) + example.prompt


def as_data(found: Sequence[Example], task: Task) -> Data:
    """Ids of examples, all as long as the longest; a shorter answer repeats its last word, which ends it."""
    ids = {word: number for number, word in enumerate(words_of(task))}
    prompts = torch.tensor([[ids[word] for word in prompt_of(example, task)] for example in found])
    filled = [example.answer + example.answer[-1:] * (task.answer - len(example.answer)) for example in found]
    return Data(prompts, torch.tensor([[ids[word] for word in answer] for answer in filled]))


def training_data(task: Task, count: int, seed: int, folder: Path) -> Data:
    """The first `count` training examples, from `folder` if they are there."""
    path = folder / f"{task.name}-{count}-{seed}.pt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        made = as_data(list(islice(examples(task, seed, test=False), count)), task)
        with beside(path) as part:
            torch.save({"prompts": made.prompts.byte(), "answers": made.answers.byte()}, part)
    kept = torch.load(path, weights_only=True)
    return Data(kept["prompts"].long(), kept["answers"].long())


def watched_data(task: Task, count: int) -> Data:
    """Held-out examples whose loss is watched in training."""
    return as_data(list(islice(examples(task, WATCHED, test=True), count)), task)
