"""What caches buy the families: approximate ones beside whole passes, exact blocks beside a plain loop.

The checkpoints are random, made here in their families' on-disk formats, so the figures say
what a pass costs, not what a text is worth; a random model's answers also part sooner
than a trained one's. Greedy, one request at a time. The rows are named
CONTESTANT_vs_BASELINE; `same answers` counts token-identical ones.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen3Config
from transformers import Qwen3ForCausalLM

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from harness import Answer
from harness import Decode
from harness import compared
from harness import table
from passes import measured
from passes import put

VOCABULARY, WIDTH, HEADS, LAYERS = 32_000, 512, 8, 8
MASK = VOCABULARY - 1
CONTEXT = 2048


def prompt_ids(prompt: str) -> list[int]:
    """A prompt is its length and a seed; the tokens are drawn."""
    length, seed = map(int, prompt.split())
    drawn = torch.randint(100, MASK, (length,), generator=torch.Generator().manual_seed(seed))
    found: list[int] = drawn.tolist()
    return found


def llada_folder(folder: Path) -> Path:
    """A LLaDA of about 60 million parameters, under its own tensor names."""
    shape = {"wte": (VOCABULARY, WIDTH), "ff_out": (VOCABULARY, WIDTH)}
    inside = dict.fromkeys(("q_proj", "k_proj", "v_proj", "attn_out"), (WIDTH, WIDTH))
    inside |= {"ff_proj": (3 * WIDTH, WIDTH), "up_proj": (3 * WIDTH, WIDTH), "ff_out": (WIDTH, 3 * WIDTH)}
    tensors: dict[str, Tensor] = {"model.transformer.ln_f.weight": torch.ones(WIDTH)}
    for name, size in shape.items():
        tensors[f"model.transformer.{name}.weight"] = torch.randn(size) / size[-1] ** 0.5
    for layer in range(LAYERS):
        for name, size in inside.items():
            tensors[f"model.transformer.blocks.{layer}.{name}.weight"] = torch.randn(size) / size[-1] ** 0.5
        for name in ("attn_norm", "ff_norm"):
            tensors[f"model.transformer.blocks.{layer}.{name}.weight"] = torch.ones(WIDTH)
    config: dict[str, Any] = {
        "architectures": ["LLaDAModelLM"],
        "model_type": "llada",
        "block_type": "llama",
        "activation_type": "silu",
        "layer_norm_type": "rms",
        "rope": True,
        "vocab_size": VOCABULARY,
        "d_model": WIDTH,
        "mlp_hidden_size": 3 * WIDTH,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "max_sequence_length": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "mask_token_id": MASK,
    }
    return written(folder, config, tensors)


def sdar_folder(folder: Path) -> Path:
    """An SDAR of about 60 million parameters."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        head_dim=WIDTH // HEADS,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
    )
    tensors = {name: tensor.contiguous() for name, tensor in Qwen3ForCausalLM(config).state_dict().items()}
    about = config.to_dict() | {"architectures": ["SDARForCausalLM"], "model_type": "sdar", "mask_token_id": MASK}
    about = {name: value for name, value in about.items() if name not in ("layer_types", "dtype")}
    return written(folder, about | {"block_size": 16, "eos_token_id": None}, tensors)


def written(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """The files of a checkpoint."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors")
    return folder


def ours(model: Model, **options: Any) -> Decode:
    """The family's own sampler with these options."""
    config = SamplingConfig(**options)

    def decode(prompt: str) -> Answer:
        finish = model.engine().generate([Request(prompt_ids(prompt), config, stop_ids=frozenset())])[0]
        return Answer(str(finish.tokens), len(finish.tokens), finish.usage.total_passes, finish.usage.rows)

    return decode


@torch.inference_mode()
def plain_blocks(model: Model, tokens: int, length: int) -> Decode:
    """Block diffusion as LLaDA2's published loop does it: everything up to the block's end, in every pass."""
    network: Any = model.denoiser.model  # type: ignore[attr-defined]

    def decode(prompt: str) -> Answer:
        text, passes, rows = prompt_ids(prompt), 0, 0
        begin, end = len(text) // length * length, -(-(len(text) + tokens) // length) * length
        ids = torch.tensor([text + [MASK] * (end - len(text))])
        block = torch.arange(end) // length
        hidden = block[None, :] > block[:, None]
        mask = torch.zeros(1, 1, end, end, dtype=network.dtype).masked_fill(hidden, torch.finfo(network.dtype).min)
        for stop in range(begin + length, end + 1, length):
            while (ids[0, stop - length : stop] == MASK).any():
                with torch.inference_mode():
                    said = network(ids[:, :stop], attention_mask=mask[:, :, :stop, :stop], use_cache=False).logits
                sure, best = said[0, stop - length : stop].softmax(-1).max(-1)
                place = sure.masked_fill(ids[0, stop - length : stop] != MASK, -1).argmax()
                ids[0, stop - length + place] = best[place]
                passes, rows = passes + 1, rows + stop
        answer = ids[0, len(text) : len(text) + tokens].tolist()
        return Answer(str(tuple(answer)), tokens, passes, rows)

    return decode


@click.command()
@click.option("--tokens", default=96, show_default=True, help="Tokens per answer.")
@click.option("--prompt", "length", default=512, show_default=True, help="Tokens per prompt.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Also write the rows here.")
@click.option("--markdown", "page", type=click.Path(path_type=Path), help="Put the table into this page.")
def main(tokens: int, length: int, rounds: int, threads: int, path: Path | None, page: Path | None) -> None:
    """Print a table of ratios."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    prompts = [f"{length + 37 * number} {number}" for number in range(3)]
    with tempfile.TemporaryDirectory() as place:
        llada = load_model(str(llada_folder(Path(place) / "llada")), dtype="float32", device="cpu")
        sdar = load_model(str(sdar_folder(Path(place) / "sdar")), dtype="float32", device="cpu")
    common: dict[str, Any] = {"max_new_tokens": tokens, "block_length": 32, "steps": tokens // 2}
    blocks: dict[str, Any] = {"max_new_tokens": tokens, "preset_options": {"remasking": "low_confidence_static"}}
    contestants = {
        "whole": ours(llada, **common),
        "prefix": ours(llada, **common, approximate_cache="prefix"),
        "dual": ours(llada, **common, approximate_cache="dual"),
        "dual_refresh_4": ours(llada, **common, approximate_cache="dual", refresh=4),
        "blocks": ours(sdar, **blocks),
        "plain_loop": plain_blocks(sdar, tokens, 16),
    }
    pairs = {f"{name}_vs_whole": (name, "whole") for name in ("prefix", "dual", "dual_refresh_4")}
    pairs["blocks_vs_plain_loop"] = ("blocks", "plain_loop")
    rows = compared(contestants, pairs, prompts, rounds, path)
    if page is not None:
        put(page, "caches", f"{measured()} Prompts of about {length} tokens, {tokens} new ones.\n\n{table(rows)}")


if __name__ == "__main__":
    main()
