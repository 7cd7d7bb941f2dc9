"""Reasoning tasks with seeded generators and strict checkers: path finding, Sudoku, Countdown, 3-SAT."""

from dllm_plugins.reasoning.countdown import CountdownTask
from dllm_plugins.reasoning.path import PathTask
from dllm_plugins.reasoning.sat import SatTask
from dllm_plugins.reasoning.sudoku import SudokuTask
from dllm_plugins.reasoning.task import Task

_ALL: tuple[Task, ...] = (
    *(PathTask(nodes) for nodes in (5, 7)),
    *(SudokuTask(side) for side in (4, 6, 9)),
    *(CountdownTask(numbers) for numbers in (3, 4)),
    *(SatTask(variables) for variables in (5, 7, 9)),
)
TASKS = {task.name: task for task in _ALL}
