"""What lossless self-verification saves: FreeDave and SSD beside slow static decoding, in one run.

Rows are named MODEL_CONTESTANT_vs_slow. The baseline is the same model in the same run, one
token a pass and greedy; `same answers` counts token-identical ones, which must be all. A
pass over many states counts once; rows/token counts every position forwarded. So tokens/pass
tells what is saved where a pass costs the same however many states it holds, and ratio
what it comes to on this machine.

The puzzles are solved by the small block-diffusion model that comes with the package;
the other two models are random, and say less about text than about cost.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.training.blocks.evaluate import held_out_puzzles
from dllm_plugins.training.blocks.evaluate import shipped_model
from families import llada_folder
from families import prompt_ids
from families import sdar_folder
from harness import Answer
from harness import Decode
from harness import Row
from harness import compared

#: The slow decoding that each kind of model is compared with.
WHOLE: dict[str, Any] = {"mode": "llada", "rule": "quota"}
BLOCKS: dict[str, Any] = {"mode": "sdar", "preset_options": {"remasking": "low_confidence_static"}}
CONTESTANTS: dict[str, dict[str, Any]] = {
    "freedave_2": {"mode": "freedave", "preset_options": {"draft_steps": 2}},
    "freedave_4": {"mode": "freedave", "preset_options": {"draft_steps": 4}},
    "freedave_8": {"mode": "freedave", "preset_options": {"draft_steps": 8}},
    "ssd_4x2": {"mode": "ssd", "preset_options": {"draft_steps": 4, "width": 2}},
    "ssd_4x3": {"mode": "ssd", "preset_options": {"draft_steps": 4, "width": 3}},
}


def decoder(model: Model, drawn: bool, options: Mapping[str, Any]) -> Decode:
    """One answer with these options.

    :param drawn: prompts are lengths and seeds of random tokens, not text.
    """
    config = SamplingConfig(**options)

    def decode(prompt: str) -> Answer:
        tokens = prompt_ids(prompt) if drawn else model.tokenizer.encode(prompt)
        finish = model.engine().generate([Request(tokens, config, stop_ids=frozenset())])[0]
        return Answer(str(finish.tokens), len(finish.tokens), finish.usage.total_passes, finish.usage.rows)

    return decode


def decoders(model: Model, drawn: bool, slow: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Decode]:
    """Every contestant on one model, and its slow decoding."""
    everyone = {"slow": slow, **CONTESTANTS}
    return {name: decoder(model, drawn, {**common, **options}) for name, options in everyone.items()}


@click.command()
@click.option("--tokens", default=32, show_default=True, help="Tokens per answer of the random models.")
@click.option("--prompts", "count", default=4, show_default=True, help="Prompts per model.")
@click.option("--rounds", default=1, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--model", "folder", type=click.Path(path_type=Path), help="In place of the puzzle model shipped.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Also write the rows here.")
def main(tokens: int, count: int, rounds: int, threads: int, folder: Path | None, path: Path | None) -> None:
    """Print a table of passes saved; fail if an answer differs from slow decoding."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    puzzles = load_model(str(folder or shipped_model()), dtype="float32", device="cpu")
    with tempfile.TemporaryDirectory() as place:
        llada = load_model(str(llada_folder(Path(place) / "llada")), dtype="float32", device="cpu")
        sdar = load_model(str(sdar_folder(Path(place) / "sdar")), dtype="float32", device="cpu")
    drawn = [f"{16 + 5 * number} {number}" for number in range(count)]
    random: dict[str, Any] = {"max_new_tokens": tokens, "block_length": 16}
    races = {
        "puzzles": (decoders(puzzles, False, BLOCKS, {"max_new_tokens": 16}), held_out_puzzles(4 * count)),
        "whole": (decoders(llada, True, WHOLE, random), drawn),
        "blocks": (decoders(sdar, True, BLOCKS, random), drawn),
    }
    found: list[Row] = []
    for name, (contestants, prompts) in races.items():
        pairs = {f"{name}_{other}_vs_slow": (other, "slow") for other in CONTESTANTS}
        found += compared(contestants, pairs, prompts, rounds, path, before=found)
    print()
    for row in found:
        print(f"{row.name}: {row.passes} passes in place of {row.baseline_passes}")
    wrong = [row.name for row in found if row.same_answers != row.answers]
    if wrong:
        raise SystemExit(f"not lossless: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
