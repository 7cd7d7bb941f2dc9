"""Every commit rule, revocation rule and sampler there is: quality against passes and time.

Two models: the default one, where quality is agreement with slow decoding, and the small
block-diffusion model of `dllm_plugins.training.blocks`, whose answers a checker accepts or
not. Slow decoding commits one token a pass. Greedy, seeds fixed. Quality is measured over
all prompts decoded together (a row's answer does not depend on its company), time over the
first few of them, one at a time and in turns.
"""

import json
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.events import Finish
from dllm_plugins.training.blocks.evaluate import held_out_puzzles
from dllm_plugins.training.blocks.evaluate import shipped_model
from dllm_plugins.training.blocks.puzzles import CELLS
from dllm_plugins.training.blocks.puzzles import solves
from dllm_plugins.training.evaluation_prompts import HELD_OUT
from harness import Answer
from harness import Decode
from harness import Result
from harness import machine
from harness import race
from progress import show
from progress import track
from rules_plot import draw
from rules_report import Point
from rules_report import scores
from rules_report import summary
from rules_report import table
from sweep import Contestant
from sweep import Values
from sweep import coarse
from sweep import contestants
from sweep import fine
from sweep import slow


@dataclass(frozen=True, slots=True)
class Task:
    """A model and what it is asked.

    :param encode: a prompt as token ids.
    :param check: whether an answer is right, where that can be told.
    :param timed: how many of the prompts are timed.
    :param tried: how finely parameters are turned.
    """

    name: str
    model: Model
    prompts: Sequence[str]
    tokens: int
    encode: Callable[[str], list[int]]
    check: Callable[[str, str], bool] | None
    timed: int
    tried: Values


def agreement(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> float:
    """Share of places that hold the same token; a place only one of the answers has counts against it."""
    equal = sum(a == b for mine, other in zip(ours, theirs, strict=True) for a, b in zip(mine, other, strict=False))
    return equal / sum(max(len(mine), len(other)) for mine, other in zip(ours, theirs, strict=True))


def decoded(task: Task, contestant: Contestant, prompts: Sequence[str]) -> list[Finish]:
    """The answers to `prompts`, decoded together, each with a seed of its own."""
    config = SamplingConfig(max_new_tokens=task.tokens, **contestant.options)
    return task.model.engine().generate(
        [Request(task.encode(prompt), config.with_options(seed=seed)) for seed, prompt in enumerate(prompts)]
    )


def timed(task: Task, contestant: Contestant) -> Decode:
    """One prompt at a time, for the clock."""

    def decode(prompt: str) -> Answer:
        found = decoded(task, contestant, [prompt])[0]
        return Answer(found.text, len(found.tokens), found.usage.total_passes, found.usage.rows)

    return decode


def point(task: Task, contestant: Contestant, found: list[Finish], reference: list[Finish], speed: float) -> Point:
    """The figures of one setting."""
    agreed = agreement([item.tokens for item in found], [item.tokens for item in reference])
    right = agreed
    if task.check is not None:
        right = sum(task.check(p, item.text) for p, item in zip(task.prompts, found, strict=True)) / len(found)
    passes = sum(item.usage.total_passes for item in found)
    return Point(
        method=contestant.method,
        setting=contestant.setting,
        quality=round(100 * right, 2),
        agreement=round(100 * agreed, 2),
        same=round(100 * sum(a.tokens == b.tokens for a, b in zip(found, reference, strict=True)) / len(found), 2),
        passes=round(passes / len(found), 2),
        tokens_per_pass=round(sum(len(item.tokens) for item in found) / passes, 3),
        tokens_per_second=round(speed, 1),
    )


def run(task: Task, rounds: int) -> Iterator[dict[str, Any]]:
    """All that fit the task's model: what is known whenever all have answered one more of the timed prompts."""
    spec = task.model.denoiser.spec
    fitting, refused = contestants(spec, drawn=task.check is not None, tried=task.tried)
    for name, reason in refused.items():
        show(f"{task.name}: {name} does not take part: {reason}")
    reference = decoded(task, slow(spec), task.prompts)
    answers: dict[str, list[Finish]] = {}
    for item in track(fitting, f"{task.name}: quality"):
        answers[item.name] = decoded(task, item, task.prompts)
        show(f"{task.name}: {told(point(task, item, answers[item.name], reference, 0.0))}")
    known: Mapping[str, Result] = {}
    for lap in race({item.name: timed(task, item) for item in fitting}, task.prompts[: task.timed], rounds):
        if not lap.results or lap.results is known:
            continue
        known = lap.results
        points = [
            point(task, item, answers[item.name], reference, 1000 / known[item.name].milliseconds_per_token)
            for item in fitting
        ]
        yield {
            "quality": "agreement with slow decoding" if task.check is None else "answers the checker accepts",
            "answers": len(task.prompts),
            "tokens": task.tokens,
            "points": [asdict(item) for item in points],
            "aup": scores(points),
        }


def told(item: Point) -> str:
    """A setting before it is timed."""
    return (
        f"{item.method} {item.setting}: quality {item.quality:.1f}, agreement {item.agreement:.1f}, "
        f"{item.passes:.1f} passes, {item.tokens_per_pass:.2f} tokens/pass"
    )


def sudoku(folder: Path | None, puzzles: int) -> Task:
    """The small model on puzzles whose boards it never saw."""
    model = load_model(str(folder or shipped_model()), dtype="float32", device="cpu")

    def encode(puzzle: str) -> list[int]:
        ids: list[int] = model.tokenizer(puzzle)["input_ids"]
        return ids

    return Task("sudoku-4x4", model, held_out_puzzles(puzzles), CELLS, encode, solves, 12, fine)


def default(prompts: int, tokens: int) -> Task:
    """The default model on held-out questions."""
    model = load_model("dllm")

    def encode(prompt: str) -> list[int]:
        return model.encode_chat([{"role": "user", "content": prompt}])

    return Task("dllm", model, HELD_OUT[:prompts], tokens, encode, None, 2, coarse)


@click.command()
@click.option("--only", type=click.Choice(["sudoku-4x4", "dllm"]), help="One of the models; default: both.")
@click.option("--sudoku", "folder", type=click.Path(path_type=Path), help="The small model's folder; default: shipped.")
@click.option("--puzzles", default=500, show_default=True)
@click.option("--prompts", default=12, show_default=True, help="How many questions the default model answers.")
@click.option("--tokens", default=48, show_default=True, help="Most tokens of an answer of the default model.")
@click.option("--rounds", default=3, show_default=True, help="Times are medians over this many.")
@click.option("--threads", default=2, show_default=True)
@click.option("--json", "path", type=click.Path(path_type=Path), default=Path("rules.json"), show_default=True)
@click.option("--plot", type=click.Path(path_type=Path), help="Also draw the results as SVG.")
@click.option("--again", is_flag=True, help="Measure nothing: print and draw what the JSON file holds.")
def main(
    only: str | None,
    folder: Path | None,
    puzzles: int,
    prompts: int,
    tokens: int,
    rounds: int,
    threads: int,
    path: Path,
    plot: Path | None,
    again: bool,
) -> None:
    """Measure every setting; print a table, write JSON, draw the Pareto front."""
    torch.set_num_threads(threads)
    makers: dict[str, Callable[[], Task]] = {
        "sudoku-4x4": lambda: sudoku(folder, puzzles),
        "dllm": lambda: default(prompts, tokens),
    }
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"models": {}}
    for name, make in makers.items():
        if not again and only in (None, name):
            for found in run(make(), rounds):
                results["models"][name] = found | {"machine": machine()}
                path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for name, result in results["models"].items():
        show(table(name, result), "", summary(result), "")
    if plot is not None:
        draw(results["models"], plot)


if __name__ == "__main__":
    main()
