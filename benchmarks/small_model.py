"""What a real small diffusion model costs on this machine: the shape of `dllm-hub/Qwen3-0.6B-diffusion-bd3lm-v0.1`.

The weights are random, made here in the checkpoint's own format, so the figures say what a token
costs, not what a text is worth. The baseline is transformers' greedy `generate` on the same
weights under a causal mask: what an autoregressive model of this size takes. The two do not say the same, so
`same answers` is no verdict here. Rows are named CONTESTANT_vs_BASELINE, with the positions that a pass
commits behind `bd3lm`.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import save_file
from transformers import Qwen3Config
from transformers import Qwen3ForCausalLM

from dllm_plugins import load_model
from dllm_plugins.denoisers.placement import choose_dtype
from families import ours
from families import prompt_ids
from harness import Answer
from harness import Decode
from harness import compared

#: Qwen3-0.6B's, by the names of its config; about 596 million weights.
SHAPE: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
    "tie_word_embeddings": True,
}
MASK, BLOCK = 151_669, 32
PER_PASS = (1, 2, 4)
BASELINE = "transformers_ar"


def checkpoint(folder: Path, dtype: torch.dtype) -> tuple[Path, Qwen3ForCausalLM]:
    """The files, and the same weights in transformers' class."""
    torch.manual_seed(0)
    config = Qwen3Config(**SHAPE, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    # transformers leaves its constructors and `to` untyped.
    network: Any = Qwen3ForCausalLM(config)
    network = network.to(dtype).eval()
    about = {"architectures": ["A2DQwen3LMHeadModel"], "model_type": "a2d-qwen3", "mask_token_id": MASK}
    about |= {**SHAPE, "hidden_act": "silu", "rms_norm_eps": config.rms_norm_eps, "rope_theta": 1_000_000.0}
    (folder / "config.json").write_text(json.dumps(about), encoding="utf-8")
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items() if name != "lm_head.weight"}
    save_file(tensors, folder / "model.safetensors")
    return folder, network


def transformers_ar(network: Any, tokens: int) -> Decode:
    """One token a forward, with a KV cache."""

    @torch.inference_mode()
    def decode(prompt: str) -> Answer:
        ids = torch.tensor([prompt_ids(prompt)])
        found = network.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
        new = found[0, ids.shape[1] :].tolist()
        return Answer(str(tuple(new)), len(new), len(new), ids.shape[1] + len(new) - 1)

    return decode


@click.command()
@click.option("--tokens", default=64, show_default=True, help="Tokens per answer, a multiple of 32.")
@click.option("--prompt", "length", default=128, show_default=True, help="Tokens per prompt.")
@click.option("--rounds", default=1, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--dtype", default="auto", show_default=True, help="bfloat16 where the processor is fast in it.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Also write the rows here.")
def main(tokens: int, length: int, rounds: int, threads: int, dtype: str, path: Path | None) -> None:
    """Print a table of ratios."""
    torch.set_num_threads(threads)
    chosen = choose_dtype(dtype, torch.device("cpu"))
    click.echo(f"weights in {chosen}", err=True)
    with tempfile.TemporaryDirectory() as place:
        folder, network = checkpoint(Path(place), chosen)
        model = load_model(str(folder), preset="bd3lm", dtype=dtype, device="cpu")
    everyone = {BASELINE: transformers_ar(network, tokens)}
    for count in PER_PASS:
        options: dict[str, Any] = {"block_length": BLOCK, "steps": tokens // count}
        everyone[f"bd3lm_{count}"] = ours(model, max_new_tokens=tokens, **options)
    own = [name for name in everyone if name != BASELINE]
    compared(everyone, {f"{name}_vs_{BASELINE}": (name, BASELINE) for name in own}, [f"{length} 0"], rounds, path)


if __name__ == "__main__":
    main()
