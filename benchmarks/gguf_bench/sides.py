"""What decodes: our engine on either backend, llama.cpp's diffusion example, llama.cpp token by token."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from gguf_bench.cli import DiffusionCli
from gguf_bench.cli import Task
from gguf_bench.turns import Decode
from gguf_bench.turns import Decoded
from llama_cpp_pass import LlamaCpp

#: So large that positions commit from left to right whatever their probabilities are, as ties do in the example.
DECAY = 1000.0
#: Nothing ends a text: both sides fill the whole canvas.
NEVER: frozenset[int] = frozenset()


def whole_canvas(task: Task, cache: str | None) -> SamplingConfig:
    """Blocks of a bidirectional model, in the order in which llama-diffusion-cli commits them when it is greedy.

    :param cache: "prefix" or None, see :class:`~dllm_plugins.config.SamplingConfig`.
    """
    return SamplingConfig(
        mode="scheduled",
        max_new_tokens=task.new,
        block_length=task.block,
        steps=task.passes,
        rule="position_aware",
        rule_options={"decay": DECAY},
        approximate_cache=cache,
    )


def cached_blocks(task: Task) -> SamplingConfig:
    """Blocks of a block-causal model behind an exact cache."""
    return SamplingConfig(
        mode="sdar",
        max_new_tokens=task.new,
        block_length=task.block,
        steps=task.steps,
        preset_options={"remasking": "low_confidence_static"},
    )


def answered(model: Model, prompt: Sequence[int], config: SamplingConfig) -> Decoded:
    """One request on a new engine."""
    request = Request(prompt, config, stop_ids=NEVER)
    began = time.perf_counter()
    finish = model.engine().generate([request])[0]
    seconds = time.perf_counter() - began
    return Decoded(tuple(finish.tokens), finish.usage.total_passes, finish.usage.rows, seconds)


def engine(model: Model, task: Task, config: SamplingConfig) -> Decode:
    """Our engine."""
    return partial(answered, model, task.prompt, config)


def diffusion_cli(cli: DiffusionCli, task: Task) -> Decode:
    """llama-diffusion-cli, by its own clock."""

    def decode() -> Decoded:
        said = cli.run(task)
        return Decoded(said.tokens, said.passes, said.passes * task.length, said.seconds)

    return decode


def token_by_token(path: Path, task: Task, threads: int) -> Decode:
    """Greedy AR decoding through llama-cpp-python's low-level functions.

    :param path: a file with KV memory.
    """
    network = LlamaCpp(path, threads, task.length)

    def decode() -> Decoded:
        began = time.perf_counter()
        tokens, _ = network.greedy(task.prompt, task.new)
        return Decoded(tuple(tokens), task.new, task.length - 1, time.perf_counter() - began)

    return decode
