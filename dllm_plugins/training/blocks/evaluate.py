"""Really decode held-out puzzles and check the answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from dllm_plugins.config import SamplingConfig
from dllm_plugins.models import Model
from dllm_plugins.models import load_model
from dllm_plugins.request import Request
from dllm_plugins.training.blocks.puzzles import CELLS
from dllm_plugins.training.blocks.puzzles import solves
from dllm_plugins.training.blocks.puzzles import split
from dllm_plugins.training.blocks.puzzles import text
from dllm_plugins.training.blocks.train import HELD_OUT_STREAM
from dllm_plugins.training.blocks.train import stream

#: Puzzles to measure on are not those whose loss the log shows.
EVALUATION_STREAM = HELD_OUT_STREAM + 1


@dataclass(frozen=True, slots=True)
class BlockScore:
    """How one setting did.

    :param solved: share of answers the checker accepts.
    :param passes: passes an answer took, on average.
    """

    solved: float
    passes: float


def shipped_model() -> Path:
    """The folder of the trained model that comes with this package."""
    return Path(str(files("dllm_plugins") / "data" / "sudoku-4x4"))


def held_out_puzzles(count: int, seed: int = 0) -> list[str]:
    """Prompts whose boards were never the answer to a training puzzle; always the same for one `seed` of a recipe."""
    prompts, _ = split(seed)[1].draw(count, stream(seed, EVALUATION_STREAM))
    return [text(prompt) for prompt in prompts]


def score(model: Model, puzzles: Sequence[str], config: SamplingConfig) -> BlockScore:
    """Decode all puzzles with `config` and check them."""
    requests = [Request(model.tokenizer(puzzle)["input_ids"], config) for puzzle in puzzles]
    finished = model.engine().generate(requests)
    right = [solves(puzzle, finish.text) for puzzle, finish in zip(puzzles, finished, strict=True)]
    return BlockScore(sum(right) / len(right), sum(finish.usage.total_passes for finish in finished) / len(finished))


def print_scores(folder: Path, count: int, seed: int) -> None:
    """From one cell a pass to a whole block a pass, with the family's own sampler."""
    model = load_model(str(folder), dtype="float32", device="cpu")
    puzzles = held_out_puzzles(count, seed)
    length = model.denoiser.spec.block_length
    print("| cells a pass | solved | passes/answer |")
    print("|---|---|---|")
    for share in (size for size in range(1, length + 1) if length % size == 0):
        config = SamplingConfig(
            max_new_tokens=CELLS, steps=length // share, preset_options={"remasking": "low_confidence_static"}
        )
        found = score(model, puzzles, config)
        print(f"| {share} | {found.solved:.1%} | {found.passes:.1f} |")
