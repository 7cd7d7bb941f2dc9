"""DiffusionGemma's sampler: uniform noise, an entropy bound, self-conditioning, adaptive stopping.

Source: transformers 5.23 `models/diffusion_gemma/generation_diffusion_gemma.py`; the bound
after arXiv 2505.24857. A canvas starts as random tokens. Step n of N, counted down, draws
a token at every position from softmax(logits / T), T = t_min + (t_max - t_min) * n / N,
and keeps those of the lowest entropies whose joint mutual information is bounded:
sum(H_1..H_k) - H_k <= bound. All others become new random tokens. The model is told its
last scaled logits. What the canvas says is the argmax; it is final after N steps, or once
it is stable and sure.
"""

from collections.abc import Sequence
from functools import partial

import torch
from pydantic import Field
from pydantic import model_validator
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import message
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose
from dllm_plugins.processes.base import NoiseProcess


class DiffusionGemmaSettings(Settings):
    """Options of DiffusionGemma's sampler."""

    block_length: int | None = Field(None, description="canvas length; that of the config if not given")
    steps: int = Field(48, description="most passes a canvas gets (`max_denoising_steps`)")
    entropy_bound: float = Field(0.1, gt=0.0, allow_inf_nan=False, description="larger keeps more tokens a pass")
    t_min: float = Field(0.4, ge=0.0, allow_inf_nan=False, description="where the temperature goes to")
    t_max: float = Field(0.8, ge=0.0, allow_inf_nan=False, description="temperature of the first pass")
    stability_threshold: int = Field(
        1, ge=0, description="stop once the argmax canvas equals this many before it, and is sure"
    )
    confidence_threshold: float = Field(
        0.005, gt=0.0, allow_inf_nan=False, description="sure is a mean entropy in nats below this"
    )
    decoder_input_ids: tuple[int, ...] | None = Field(
        None, description="what the first canvas starts as, in place of random tokens"
    )

    @model_validator(mode="after")
    def _falls(self) -> "DiffusionGemmaSettings":
        if self.t_max <= self.t_min:
            raise ValueError(f"t_max={self.t_max} must be above t_min={self.t_min}; the temperature falls")
        return self


def entropies(logits: Tensor) -> Tensor:
    """In nats; logits [N, V], result [N]."""
    log = logits - logits.logsumexp(dim=-1, keepdim=True)
    return -(log * torch.softmax(log, dim=-1)).sum(-1)


def within_bound(entropy: Tensor, bound: float) -> Tensor:
    """Which of N positions may be kept together; the surest one always. Bool [N]."""
    ascending, order = torch.sort(entropy)
    kept = ascending.cumsum(0) - ascending <= bound
    return torch.zeros_like(kept).scatter(0, order, kept)


class GemmaDenoising:
    """One canvas of random tokens on its way to an answer.

    :param begin: its first position.
    :param tokens: what it starts as.
    :param process: what positions hold that are not kept.
    """

    def __init__(
        self, canvas: Canvas, begin: int, tokens: tuple[int, ...], process: NoiseProcess, spec: ModelSpec
    ) -> None:
        self.canvas = canvas
        self.begin = begin
        self.tokens = tokens
        self.process = process
        self.spec = spec
        self.conditioning: Tensor | None = None
        self._past: list[Tensor] = []

    def read(self, raw: Tensor, step: int, settings: DiffusionGemmaSettings) -> bool:
        """Take in what a pass said, raw logits [length, V]; whether the canvas is stable and sure."""
        logits = raw / temperature(step, settings).to(raw.device)
        best, entropy = logits.argmax(dim=-1), entropies(logits)
        for position, token, source in zip(range(self.begin, self.canvas.end), best.tolist(), raw, strict=False):
            self.canvas.write(position, token, source)
        self._renoise(logits, within_bound(entropy, settings.entropy_bound), step)
        self.conditioning = logits
        stable = len(self._past) >= settings.stability_threshold and all(torch.equal(past, best) for past in self._past)
        self._past = [*self._past, best][-settings.stability_threshold :] if settings.stability_threshold else []
        return stable and bool(entropy.mean() < settings.confidence_threshold)

    def _renoise(self, logits: Tensor, kept: Tensor, step: int) -> None:
        """Draw every position; those that are not kept [length] get noise instead."""
        noise = self.canvas.row.noise
        probabilities = torch.softmax(logits, dim=-1, dtype=torch.float32)
        drawn = noise.categorical(Key(Purpose.GEMMA_DENOISED, self.begin, step), probabilities).tolist()
        fresh = self.process.noised(len(drawn), self.spec, noise, Key(Purpose.GEMMA_RENOISED, self.begin, step))
        self.tokens = tuple(
            mine if keep else other for keep, mine, other in zip(kept.tolist(), drawn, fresh, strict=True)
        )


def forward(
    canvas: Canvas, frozen: int, begin: int, tokens: Sequence[int], conditioning: Tensor | None
) -> Dialogue[Tensor]:
    """Logits [len(tokens), V] of random tokens that stand from `begin` on; what is before them freezes by the way.

    :param frozen: how long the prefix is so far.
    :param conditioning: the pass's before this one, [len(tokens), V], for the model to read.
    """
    known = begin - frozen
    context = (canvas.part(range(frozen, begin), causal=True),) if known else ()
    behind = ((0, known),) if known else ()
    newest = canvas.noisy(tokens, range(begin, begin + len(tokens)), behind, conditioning)
    return (yield Pass((*context, newest), "predict" if frozen else "prefill", freeze=known))[-1].logits


def temperature(step: int, settings: DiffusionGemmaSettings) -> Tensor:
    """Of a step, counted up from 0; a scalar in single precision, as the reference computes it."""
    left = torch.tensor(settings.steps - step, dtype=torch.int32) / settings.steps
    return settings.t_min + (settings.t_max - settings.t_min) * left


def start(process: NoiseProcess, canvas: Canvas, settings: DiffusionGemmaSettings, spec: ModelSpec) -> Program:
    """Canvas after canvas, each denoised as a whole even if the answer ends inside it."""
    length, frozen = settings.block_length or spec.block_length, 0
    for begin in range(canvas.prompt, canvas.end, length):
        tokens = process.noised(length, spec, canvas.row.noise, Key(Purpose.GEMMA_INITIAL, begin))
        if begin == canvas.prompt and settings.decoder_input_ids is not None:
            tokens = settings.decoder_input_ids
        denoising = GemmaDenoising(canvas, begin, tokens, process, spec)
        for step in range(settings.steps):
            logits = yield from forward(canvas, frozen, begin, denoising.tokens, denoising.conditioning)
            frozen = begin
            if denoising.read(logits, step, settings):
                break
        canvas.release(begin + length)
        if canvas.row.stop_ids.intersection(canvas.tokens[begin : canvas.end]):
            break


def _fit(settings: DiffusionGemmaSettings, _config: SamplingConfig, spec: ModelSpec) -> None:
    """Refuse a canvas to start from that the model cannot read."""
    tokens, length = settings.decoder_input_ids, settings.block_length or spec.block_length
    if tokens is not None and (len(tokens) != length or not all(0 <= token < spec.vocabulary for token in tokens)):
        raise OptionError(f"decoder_input_ids={tokens}: give {length} ids, each from 0 to {spec.vocabulary - 1}")


def _check(config: SamplingConfig) -> None:
    """Refuse the common temperature: this sampler has a schedule of its own."""
    if config.temperature > 0:
        raise OptionError(
            message(
                "{temperature}={} has no effect on DiffusionGemma, whose temperature falls from t_max "
                "to t_min; set those in preset_options",
                config.temperature,
            )
        )


def sampler(process: NoiseProcess) -> Sampler:
    """DiffusionGemma's, on a process that says what an open position holds."""
    return Sampler(
        name="diffusion_gemma",
        summary="whole canvases from uniform noise, entropy bound, self-conditioning, adaptive stopping",
        source="transformers 5.23 models/diffusion_gemma/generation_diffusion_gemma.py",
        settings=DiffusionGemmaSettings,
        start=partial(start, process),
        unheld="an open position holds any token there, not a mask",
        rereads=True,
        refuse=_check,
        fit=_fit,
    )
