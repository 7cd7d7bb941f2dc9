"""Discrete flow matching from random tokens, for checkpoints of uniform noise (arXiv 2407.15595).

Canvas after canvas of DiffusionGemma, each behind everything before it, as in its own
sampler. A step draws a clean token at every position that jumps forward and a random one at
every position that jumps back, with the probabilities of
:mod:`~dllm_plugins.processes.flow`; so tokens are corrected without ever being masks, and
none is final before the last step, which draws them all. Temperature 1 follows the model.

The model is not told the time. It is told what it said last, as its own sampler does,
unless `self_conditioning` is off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.diffusion_gemma import forward
from dllm_plugins.modes.flow import FlowOptions
from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose
from dllm_plugins.prediction import predict
from dllm_plugins.processes.base import NoiseProcess
from dllm_plugins.processes.flow import FlowStep
from dllm_plugins.processes.flow import chosen


class FlowUniformSettings(FlowOptions):
    """Options of flow matching from random tokens."""

    block_length: int | None = Field(None, description="canvas length; that of the config if not given")
    steps: int = Field(48, description="passes a canvas gets; with solver='euler' perhaps more")
    self_conditioning: bool = Field(default=True, description="tell the model what it said in the pass before")


@dataclass
class FlowDenoising:
    """One canvas of random tokens on its way to an answer.

    :param begin: its first position.
    :param tokens: what it holds.
    :param process: what a position holds that jumps back.
    """

    canvas: Canvas
    spec: ModelSpec
    process: NoiseProcess
    begin: int
    tokens: list[int]
    last_logits: Tensor | None = None

    def move(self, logits: Tensor, number: int, step: FlowStep, settings: FlowUniformSettings) -> None:
        """Jumps of one step; logits [length, V]."""
        noise, length = self.canvas.row.noise, len(self.tokens)
        luck = noise.uniform(Key(Purpose.UNIFORM_MOVES, self.begin, number), length + 1).tolist()
        sides = noise.uniform(Key(Purpose.UNIFORM_SIDES, self.begin, number), length).tolist()
        jumps = chosen(luck, [step.jump] * length, evenly=settings.few_steps)
        self._forward(
            [index for index in range(length) if jumps[index] and sides[index] < step.forward], logits, number
        )
        fresh = self.process.noised(length, self.spec, noise, Key(Purpose.UNIFORM_BACK, self.begin, number))
        for index in range(length):
            if jumps[index] and sides[index] >= step.forward:
                self._write(index, fresh[index])
        if settings.self_conditioning:
            self.last_logits = logits / (self.canvas.row.config.temperature or 1.0)

    def _forward(self, indices: Sequence[int], logits: Tensor, number: int) -> None:
        if not indices:
            return
        draws = [self.canvas.row.canvas_draw(self.begin + index, number) for index in indices]
        drawn = predict(logits[torch.tensor(indices, device=logits.device)], draws).token.tolist()
        for index, token in zip(indices, drawn, strict=True):
            self._write(index, token, logits[index])

    def _write(self, index: int, token: int, logits: Tensor | None = None) -> None:
        self.tokens[index] = token
        if self.begin + index < self.canvas.end:
            self.canvas.write(self.begin + index, token, logits)


def start(process: NoiseProcess, canvas: Canvas, settings: FlowUniformSettings, spec: ModelSpec) -> Program:
    """Canvas after canvas, each denoised as a whole even if the answer ends inside it."""
    length, frozen, steps = settings.block_length or spec.block_length, 0, settings.flow().steps(settings.steps)
    for begin in range(canvas.prompt, canvas.end, length):
        tokens = list(process.noised(length, spec, canvas.row.noise, Key(Purpose.UNIFORM_INITIAL, begin)))
        denoising = FlowDenoising(canvas, spec, process, begin, tokens)
        for number, step in enumerate(steps):
            logits = yield from forward(canvas, frozen, begin, tuple(denoising.tokens), denoising.last_logits)
            frozen = begin
            denoising.move(logits, number, step, settings)
        canvas.release(begin + length)
        if canvas.row.stop_ids.intersection(canvas.tokens[begin : canvas.end]):
            break


def sampler(process: NoiseProcess) -> Sampler:
    """It, on a process that says what noise is."""
    return Sampler(
        name="flow_uniform",
        summary="discrete flow matching from random tokens: schedulers, a corrector, few steps",
        source="arXiv 2407.15595; integrated rates after arXiv 2509.20624",
        settings=FlowUniformSettings,
        start=partial(start, process),
        unheld="an open position holds any token there, not a mask",
        rereads=True,
    )
