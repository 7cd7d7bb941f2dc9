"""The shipped model on every backend: which one is the fastest here, and by how much."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import torch

from dllm_plugins import Model
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.default_model.base_model import require_base
from dllm_plugins.training.evaluation_prompts import HELD_OUT
from gguf_bench.checkpoints import weights_of
from gguf_bench.sides import answered
from gguf_bench.turns import Decode
from gguf_bench.turns import Decoded
from gguf_bench.turns import Row
from gguf_bench.turns import Setting
from gguf_bench.turns import agreement
from gguf_bench.turns import compare
from gguf_bench.turns import in_turns

MODES = ("speculative", "ar")
#: What `auto` loads without GGUF files; every row compares with it.
BASELINE = "kernels"
PROMPTS = 4
#: Types of weights that names do not tell.
QUANTS_OF = {"kernels_int8": "int8", "torch": "bfloat16"}


def models(quants: Sequence[str]) -> Mapping[str, Model]:
    """By backend, and type of weights where there is a choice."""
    found = {BASELINE: load_model("dllm", backend="kernels", device="cpu")}
    found["kernels_int8"] = load_model("dllm", weights="int8", device="cpu")
    found["torch"] = load_model("dllm", backend="torch", device="cpu")
    types = {"BF16": {"dtype": "bfloat16"}, "F16": {"dtype": "float16"}, "F32": {"dtype": "float32"}}
    for quant in quants:
        found[f"llama_cpp_{quant}"] = load_model("dllm", backend="llama_cpp", **types.get(quant, {"weights": quant}))
    return found


def all_prompts(model: Model, prompts: Sequence[Sequence[int]], config: SamplingConfig) -> Decode:
    """All prompts one after the other, as if they were one answer."""

    def decode() -> Decoded:
        found = [answered(model, prompt, config) for prompt in prompts]
        return Decoded(
            tuple(token for item in found for token in item.tokens),
            sum(item.passes for item in found),
            sum(item.rows for item in found),
            sum(item.seconds for item in found),
        )

    return decode


def default_rows(quants: Sequence[str], new: int, rounds: int) -> Iterator[Row]:
    """Each beside the kernels in bfloat16, `default/MODE/CONTESTANT`; above 1 the contestant is the faster one."""
    loaded = models(quants)
    prompts = [loaded[BASELINE].encode_chat([{"role": "user", "content": text}]) for text in HELD_OUT[:PROMPTS]]
    for mode in MODES:
        config = SamplingConfig(mode=mode, max_new_tokens=new)
        found = in_turns({name: all_prompts(model, prompts, config) for name, model in loaded.items()}, rounds)
        baseline = found.pop(BASELINE)
        for name, side in found.items():
            setting = Setting(
                architecture="smollm2",
                size="135m",
                quant=QUANTS_OF.get(name, name.removeprefix("llama_cpp_")),
                weights=weights_of(require_base()),
                threads=torch.get_num_threads(),
                prompt=sum(len(prompt) for prompt in prompts),
                new_tokens=new * len(prompts),
            )
            equal = agreement(side.answer, baseline.answer)
            decoding = f"{len(prompts)} prompts, mode {mode}, greedy"
            yield compare(f"default/{mode}/{name}", side, baseline, setting, decoding, equal)
