"""Does repair help? Mode `repair` of the default model beside its mode `ar`, on questions with known answers.

Sums and copies from a text, each answer right or wrong; beside that how likely the base finds each answer, in nats a
token, how many tokens were looked at, reopened and changed, and what it costs in passes and positions.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from default_model import chat
from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.denoisers.base import Segment

#: Pairs of numbers of sums, and of people with their towns.
_SUMS = ((1, 1), (2, 2), (2, 3), (4, 4), (5, 3), (6, 2), (7, 5), (10, 10), (12, 9), (17, 25))
_PEOPLE = (
    ("Amelia", "Lisbon"),
    ("Boris", "Zagreb"),
    ("Chen", "Taipei"),
    ("Daniela", "Turin"),
    ("Emre", "Izmir"),
    ("Farah", "Tunis"),
    ("Goran", "Skopje"),
    ("Hanna", "Bergen"),
    ("Ivan", "Varna"),
    ("Julia", "Graz"),
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and what its answer must hold."""

    kind: str
    text: str
    answer: str


QUESTIONS = (
    *(Question("sums", f"What is {one} + {other}?", str(one + other)) for one, other in _SUMS),
    *(
        Question("copies", f"{name} lives in {town} and works as a baker. Where does {name} live?", town)
        for name, town in _PEOPLE
    ),
)


def likelihood(model: Model, prompt: list[int], answer: list[int]) -> float:
    """Mean log-probability of an answer's tokens to the base, each with those before it in view; nats."""
    denoiser = model.denoiser
    row = denoiser.open_row()
    tokens = [*prompt, *answer]
    wanted = range(len(prompt) - 1, len(tokens) - 1)
    try:
        [hidden] = denoiser.forward([Segment(row, tokens, range(len(tokens)), wanted=wanted)])
    finally:
        denoiser.close_row(row)
    said = denoiser.logits(hidden).float().log_softmax(-1)
    return float(said.gather(1, torch.tensor(answer)[:, None]).mean())


def measured(model: Model, mode: str, tokens: int, options: dict[str, Any]) -> dict[str, Any]:
    """What comes of all questions in a mode."""
    right = dict.fromkeys(("sums", "copies"), 0)
    said, passes, rows = list[float](), 0, 0
    looked = reopened = changed = undone = differing = 0
    for number, question in enumerate(QUESTIONS):
        prompt = model.encode_chat(chat(question.text))
        config = SamplingConfig(
            mode=mode, max_new_tokens=tokens, seed=number if "temperature" in options else None, **options
        )
        finish: Finish
        [finish] = model.engine().generate([Request(prompt, config)])
        right[question.kind] += question.answer in finish.text
        said.append(likelihood(model, prompt, list(finish.tokens)))
        passes, rows = passes + finish.usage.total_passes, rows + finish.usage.rows
        if (found := finish.usage.repairs) is not None:
            looked, reopened, undone = looked + found.looked, reopened + found.reopened, undone + found.undone
            changed, differing = changed + len(found.changed), differing + bool(found.changed)
    return {
        "mode": mode,
        **options.get("preset_options", {}),
        "threshold": options.get("threshold"),
        "temperature": options.get("temperature", 0.0),
        "right": right,
        "nats_per_token": round(sum(said) / len(said), 4),
        "passes": passes,
        "rows": rows,
        "looked": looked,
        "reopened": reopened,
        "rounds_undone": undone,
        "changed": changed,
        "answers_changed": differing,
    }


@click.command()
@click.option("--tokens", default=16, show_default=True, help="Most tokens of an answer.")
@click.option("--thresholds", default="0.05,0.3", show_default=True, help="Probabilities that keep a token.")
@click.option("--temperatures", default="0,0.8", show_default=True, help="At which answers are drawn.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here.")
def main(tokens: int, thresholds: str, temperatures: str, file: Path | None) -> None:
    """Compare ar with repair at several thresholds, two rounds each."""
    model, found = load_model("dllm"), list[dict[str, Any]]()
    for temperature in map(float, temperatures.split(",")):
        drawn = {"temperature": temperature} if temperature else {}
        asked: list[tuple[str, dict[str, Any]]] = [("ar", drawn)]
        for threshold in map(float, thresholds.split(",")):
            asked.append(("repair", {**drawn, "threshold": threshold, "preset_options": {"rounds": 2}}))
        for mode, options in asked:
            found.append(measured(model, mode, tokens, options))
            click.echo(json.dumps(found[-1]))
    if file is not None:
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
