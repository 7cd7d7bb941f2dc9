"""The tables of all cells that were trained and measured: what training took, and what came of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from dllm_plugins.reasoning import TASKS
from dllm_plugins.training.reasoning.evaluate import wilson

#: What a row of the results is about; the same row of another seed is told beside it.
_KEYS = ("task", "method", "way", "asked")


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """What was measured of all cells in a folder."""
    return [line for path in sorted(folder.glob("*/scores.json")) for line in json.loads(path.read_text())]


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row a model and way, a column a level, and one for each further seed."""
    found, seeds = list[str](), sorted({line["seed"] for line in lines})
    others = {(line["seed"], *(line[key] for key in _KEYS)): line for line in lines if line["seed"] in seeds[1:]}
    for task in sorted({line["task"] for line in lines}):
        own = [line for line in lines if line["task"] == task]
        levels = sorted({int(level) for line in own for level in line["of"]})
        heads = [*map(str, levels), *(f"seed {seed}" for seed in seeds[1:])]
        found.append("| task | trained | decoded | passes | right, 95 % | " + " | ".join(heads) + " |")
        found.append("|---" * (5 + len(heads)) + "|")
        for line in own:
            if line["seed"] == seeds[0]:
                more = [others.get((seed, *(line[key] for key in _KEYS))) for seed in seeds[1:]]
                found.append(_row(line, levels, [f"{share_of(other):.1%}" if other else "" for other in more]))
        found.append("")
    return "\n".join(found)


def share_of(line: dict[str, Any]) -> float:
    """The share of right answers of all levels."""
    return float(sum(line["right"].values()) / sum(line["of"].values()))


def _row(line: dict[str, Any], levels: Sequence[int], more: Sequence[str]) -> str:
    right, asked = ({int(level): number for level, number in line[key].items()} for key in ("right", "of"))
    low, high = wilson(sum(right.values()), sum(asked.values()))
    shares = [f"{right[level] / asked[level]:.0%}" if asked.get(level) else "" for level in levels]
    cells = [line["task"], line["method"], line["way"], f"{line['passes']:.1f}"]
    cells += [f"{share_of(line):.1%} ({low:.1%} to {high:.1%})", *shares, *more]
    return "| " + " | ".join(cells) + " |"


def costs(folder: Path) -> str:
    """Markdown: what training each cell took, with the cell that it began with."""
    found = ["| cell | seed | weights | examples | words | minutes | least held-out loss | at step |", "|---" * 8 + "|"]
    for path in sorted(folder.glob("*/model/cell.json")):
        cell = json.loads(path.read_text())
        seen, minutes = _spent(path.parent.parent)
        task = TASKS[cell["task"]]
        least = min(curve_of(path.parent.parent), key=lambda point: point["held_out"])
        words = seen * (task.prompt + task.answer)
        row = [path.parent.parent.name, cell["seed"], f"{_weights(path.parent):,}", f"{seen:,}", f"{words / 1e6:.1f} M"]
        row += [f"{minutes:.1f}", f"{least['held_out']:.3f}", least["step"]]
        found.append("| " + " | ".join(map(str, row)) + " |")
    return "\n".join(found)


def curve_of(cell: Path) -> list[dict[str, Any]]:
    """The losses that were watched while a cell was trained: step, minutes, loss, held_out."""
    return [json.loads(line) for line in (cell / "log.jsonl").read_text().splitlines()]


def _spent(cell: Path) -> tuple[int, float]:
    """Examples seen and minutes taken by a cell and those that it began with."""
    about = json.loads((cell / "model" / "cell.json").read_text())
    last = curve_of(cell)[-1]
    seen, minutes = _spent(cell.parent / about["begin"]) if about["begin"] else (0, 0.0)
    return seen + last["step"] * about["batch"], minutes + last["minutes"]


def _weights(model: Path) -> int:
    """How many numbers a checkpoint has."""
    with safe_open(model / "model.safetensors", "pt") as file:
        return sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118 - a file, no mapping
