"""The table of all cells that were trained and measured."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dllm_plugins.training.reasoning.evaluate import wilson


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """What was measured of all cells in a folder."""
    return [line for path in sorted(folder.glob("*/scores.json")) for line in json.loads(path.read_text())]


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row a model and way, a column a level."""
    found = list[str]()
    for task in sorted({line["task"] for line in lines}):
        own = [line for line in lines if line["task"] == task]
        levels = sorted({int(level) for line in own for level in line["of"]})
        found.append("| task | trained | decoded | passes | right, 95 % | " + " | ".join(map(str, levels)) + " |")
        found.append("|---" * (5 + len(levels)) + "|")
        found += [_row(line, levels) for line in own]
        found.append("")
    return "\n".join(found)


def _row(line: dict[str, Any], levels: Sequence[int]) -> str:
    right, asked = ({int(level): number for level, number in line[key].items()} for key in ("right", "of"))
    total, count = sum(right.values()), sum(asked.values())
    low, high = wilson(total, count)
    shares = [f"{right[level] / asked[level]:.0%}" if asked.get(level) else "" for level in levels]
    cells = [line["task"], line["method"], line["way"], f"{line['passes']:.1f}"]
    cells += [f"{total / count:.1%} ({low:.1%} to {high:.1%})", *shares]
    return "| " + " | ".join(cells) + " |"
