"""Random draws of a reference run, handed to our engine in place of its own.

Inputs, not expectations: a sampler that draws from a global generator can only be compared
draw by draw. The reference draws for the whole batch; each row is handed its own part.
Per canvas: initial tokens; then, per step, a token at every position and new noise.
"""

from collections.abc import Sequence
from typing import Any
from typing import Protocol

import torch
from torch import Tensor

from dllm_plugins.errors import RequestError
from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose
from dllm_plugins.noise import RowNoise


class Draws(Protocol):
    """What a batch draws."""

    def initial(self, row: int, canvas: int, vocabulary: int) -> list[int]:
        """Tokens a canvas starts as."""

    def denoised(self, row: int, canvas: int, step: int, probabilities: Tensor) -> list[int]:
        """A token per position, of probabilities [length, V]."""

    def renoised(self, row: int, canvas: int, step: int) -> list[int]:
        """New noise after a step."""


class Recorded:
    """Draws as they were logged.

    :param log: pairs of a kind, randint [rows, length] or multinomial [rows * length], and ids.
    :param length: of a canvas.
    """

    def __init__(self, log: Sequence[Sequence[Any]], length: int) -> None:
        self.length = length
        self._canvases: list[list[Any]] = []
        previous = "randint"
        for kind, ids in log:
            if kind == previous == "randint":
                self._canvases.append([])
            self._canvases[-1].append(ids)
            previous = kind

    def _find(self, canvas: int, number: int) -> Any:
        if canvas >= len(self._canvases) or number >= len(self._canvases[canvas]):
            raise RequestError(f"canvas {canvas} has no draw {number} in the log; the run it is from went another way")
        return self._canvases[canvas][number]

    def initial(self, row: int, canvas: int, vocabulary: int) -> list[int]:
        """See :class:`Draws`."""
        return list(self._find(canvas, 0)[row])

    def denoised(self, row: int, canvas: int, step: int, probabilities: Tensor) -> list[int]:
        """See :class:`Draws`."""
        return list(self._find(canvas, 2 * step + 1)[row * self.length : (row + 1) * self.length])

    def renoised(self, row: int, canvas: int, step: int) -> list[int]:
        """See :class:`Draws`."""
        return list(self._find(canvas, 2 * step + 2)[row])


class Regenerated:
    """Draws of a seeded generator, in the reference's order of calls.

    torch draws multinomially with one exponential number per probability: the largest
    quotient wins. So the numbers can be had before the probabilities are.
    """

    def __init__(self, seed: int, rows: int, length: int) -> None:
        self.rows, self.length = rows, length
        self._generator = torch.Generator().manual_seed(seed)
        self._vocabulary = 0
        self._canvases: list[list[Tensor]] = []

    def _tokens(self) -> Tensor:
        return torch.randint(0, self._vocabulary, (self.rows, self.length), generator=self._generator)

    def _find(self, canvas: int, number: int) -> Tensor:
        """The draw, after all that the reference makes before it."""
        if canvas == len(self._canvases):
            self._canvases.append([self._tokens()])
        found = self._canvases[canvas]
        while number >= len(found):
            if canvas + 1 < len(self._canvases):
                raise RequestError(
                    f"rows part in canvas {canvas}, so a seed does not tell whose a draw is; give a log of the draws"
                )
            race = torch.empty(self.rows * self.length, self._vocabulary)
            found.append(race.exponential_(1, generator=self._generator))
            found.append(self._tokens())
        return found[number]

    def initial(self, row: int, canvas: int, vocabulary: int) -> list[int]:
        """See :class:`Draws`."""
        self._vocabulary = vocabulary
        return [int(token) for token in self._find(canvas, 0)[row]]

    def denoised(self, row: int, canvas: int, step: int, probabilities: Tensor) -> list[int]:
        """See :class:`Draws`."""
        race = self._find(canvas, 2 * step + 1)[row * self.length : (row + 1) * self.length]
        return [int(token) for token in (probabilities / race).argmax(-1)]

    def renoised(self, row: int, canvas: int, step: int) -> list[int]:
        """See :class:`Draws`."""
        return [int(token) for token in self._find(canvas, 2 * step + 2)[row]]


class Replay(RowNoise):
    """One row's part of a batch's draws.

    :param row: its number in the batch.
    :param prompt: where its first canvas begins.
    :param length: of a canvas.
    """

    def __init__(self, draws: Draws, row: int, prompt: int, length: int) -> None:
        super().__init__(0)
        self.draws, self.row, self.prompt, self.length = draws, row, prompt, length

    def tokens(self, key: Key, count: int, vocabulary: int) -> Tensor:
        """Initial tokens or new noise."""
        canvas = (key.position - self.prompt) // self.length
        if key.purpose == Purpose.GEMMA_INITIAL:
            return torch.tensor(self.draws.initial(self.row, canvas, vocabulary))
        return torch.tensor(self.draws.renoised(self.row, canvas, key.step))

    def categorical(self, key: Key, probabilities: Tensor) -> Tensor:
        """A token per position."""
        assert key.purpose == Purpose.GEMMA_DENOISED
        canvas = (key.position - self.prompt) // self.length
        return torch.tensor(self.draws.denoised(self.row, canvas, key.step, probabilities))
