"""The default model's modes beside AR decoding here, in transformers, and in llama.cpp.

Same prompts, same weights, greedy, one request at a time. llama.cpp takes part when
llama-cpp-python is installed; it runs the GGUF file that the base model was unpacked
from. The row names are MODE_vs_BASELINE, with the draft length behind `speculative` where it is not
the default one.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.default_model.base_model import gguf_path
from dllm_plugins.default_model.base_model import require_base
from dllm_plugins.denoisers.placement import choose_dtype
from dllm_plugins.training.evaluation_prompts import HELD_OUT
from harness import Answer
from harness import Decode
from harness import compared
from harness import table
from passes import measured
from passes import put

MODES = ("speculative", "diffusion")
DRAFT_LENGTHS = (1, 2, 3, 4)
DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32}


def chat(prompt: str) -> list[dict[str, str]]:
    """A conversation of one question."""
    return [{"role": "user", "content": prompt}]


def ours(model: Model, tokens: int, **options: Any) -> Decode:
    """Our engine with these options."""
    config = SamplingConfig(max_new_tokens=tokens, **options)

    def decode(prompt: str) -> Answer:
        finish = model.engine().generate([Request(model.encode_chat(chat(prompt)), config)])[0]
        return Answer(finish.text, len(finish.tokens), finish.usage.total_passes, finish.usage.rows)

    return decode


def transformers_greedy(model: Model, dtype: torch.dtype, tokens: int) -> Decode:
    """Transformers' own generate on the same weights."""
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_pretrained(require_base(), dtype=dtype, trust_remote_code=False)
    stops = model.denoiser.spec.stop_ids

    def decode(prompt: str) -> Answer:
        ids = torch.tensor([model.encode_chat(chat(prompt))])
        mask = torch.ones_like(ids)
        found = network.generate(
            ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=min(stops)
        )
        new = found[0, ids.shape[1] :].tolist()
        answer = new[:-1] if new[-1] in stops else new
        return Answer(model.tokenizer.decode(answer, skip_special_tokens=True), len(answer), len(new))

    return decode


def llama_cpp_greedy(model: Model, gguf: Path, tokens: int, threads: int) -> Decode:
    """llama-cpp-python on the GGUF file."""
    import llama_cpp

    network: Any = llama_cpp.Llama(str(gguf), n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False)
    stops = model.denoiser.spec.stop_ids

    def decode(prompt: str) -> Answer:
        network.reset()
        new: list[int] = []
        for token in network.generate(model.encode_chat(chat(prompt)), top_k=1, temp=0.0, repeat_penalty=1.0):
            new.append(int(token))
            if new[-1] in stops or len(new) == tokens:
                break
        answer = new[:-1] if new[-1] in stops else new
        return Answer(model.tokenizer.decode(answer, skip_special_tokens=True), len(answer), len(new))

    return decode


def contestants(model: Model, tokens: int, gguf: Path | None) -> dict[str, Decode]:
    """All that can run here."""
    found: dict[str, Decode] = {mode: ours(model, tokens, mode=mode) for mode in ("ar", *MODES)}
    for length in DRAFT_LENGTHS:
        found[f"speculative_{length}"] = ours(model, tokens, mode="speculative", draft_length=length)
    for name, dtype in DTYPES.items():
        found[f"transformers_{name}"] = transformers_greedy(model, dtype, tokens)
    if gguf is not None:
        found["llama_cpp"] = llama_cpp_greedy(model, gguf, tokens, torch.get_num_threads())
    return found


def find_gguf(path: Path | None, say: Callable[[str], None]) -> Path | None:
    """The file llama.cpp runs, if it can take part."""
    file = path or gguf_path()
    if importlib.util.find_spec("llama_cpp") is None:
        say("llama.cpp does not take part: llama-cpp-python is not installed")
    elif not file.exists():
        say(f"llama.cpp does not take part: {file} is missing; `python -m dllm_plugins setup --force` makes it")
    else:
        return file
    return None


@click.command()
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows here.")
@click.option("--prompts", default=12, show_default=True, help="How many of the held-out prompts.")
@click.option("--tokens", default=64, show_default=True, help="Most tokens an answer.")
@click.option("--rounds", default=3, show_default=True, help="Medians are over this many.")
@click.option("--dtype", default="auto", show_default=True, help="Our engine's dtype.")
@click.option("--gguf", type=click.Path(path_type=Path), help="GGUF file for llama.cpp.")
@click.option("--markdown", "page", type=click.Path(path_type=Path), help="Put the table into this page.")
def main(
    path: Path | None, prompts: int, tokens: int, rounds: int, dtype: str, gguf: Path | None, page: Path | None
) -> None:
    """Measure and print a table."""
    model = load_model("dllm", dtype=dtype)
    everyone = contestants(model, tokens, find_gguf(gguf, click.echo))
    lengths = [f"speculative_{length}" for length in DRAFT_LENGTHS]
    baselines = [name for name in everyone if name not in (*MODES, *lengths)]
    pairs = [(name, "ar") for name in lengths] + [(mode, baseline) for mode in MODES for baseline in baselines]
    named = {f"{own}_vs_{other}": (own, other) for own, other in pairs}
    rows = compared(everyone, named, HELD_OUT[:prompts], rounds, path)
    if page is not None:
        ours_in = str(choose_dtype(dtype, torch.device("cpu"))).removeprefix("torch.")
        head = f"{measured()} {prompts} prompts, at most {tokens} tokens, rounds: {rounds}, our engine in {ours_in}."
        put(page, "default-model", f"{head}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
