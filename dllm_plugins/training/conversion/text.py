"""Text to train on: JSON lines of chats, of plain text, or of a base's own answers."""

import gzip
import json
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import DllmError
from dllm_plugins.processes.objectives import IGNORED

Row = dict[str, list[int]]
#: Of text without held-out files, every one of so many is held out.
EVERY = 20


def rows_of(files: Sequence[Path], collator: Any, stops: frozenset[int], block: int, canvas: bool) -> list[Row]:
    """Examples as `input_ids` and `labels`, cut to the collator's length.

    A text that ends is filled up with ends of text to the end of its block, which are learnt. One that was cut off
    says nothing about where texts end: it is cut once more, to whole blocks, or left out where a canvas is learnt.

    :param collator: a :class:`~dllm_transformers.DiffusionCollator`.
    :param stops: ids that end a text.
    :param canvas: see :class:`~dllm_plugins.training.conversion.targets.Target`.
    :raises CheckpointError: naming the file and the line that cannot be read, and where nothing is left.
    """
    found = [row for file in files for line in _lines(file) if (row := _row(line, collator, stops, block, canvas))]
    if not found:
        raise CheckpointError(f"nothing to learn in {', '.join(map(str, files))}; raise --length, or give other --text")
    return found


def _lines(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each line with its place."""
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                yield f"{file}, line {number}", json.loads(line)
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"{file} holds no JSON lines: {error}") from error


def _row(
    line: tuple[str, Mapping[str, Any]], collator: Any, stops: frozenset[int], block: int, canvas: bool
) -> Row | None:
    place, example = line
    if not isinstance(example, dict):
        raise CheckpointError(f"{place} is no JSON object")
    if "r" in example:
        # The base's own answers, as `corpus` writes them.
        example = {"input_ids": example["p"] + example["r"], "labels": [IGNORED] * len(example["p"]) + example["r"]}
    try:
        row: Row = collator.encode(example)
    except DllmError as error:
        raise CheckpointError(f"{place}: {error}") from error
    ids, labels = row["input_ids"], row["labels"]
    ends = bool(ids) and ids[-1] in stops
    if ends and not canvas:
        more = [collator.end_id] * (-len(ids) % block)
        ids, labels = ids + more, labels + more
    elif not ends:
        whole = 0 if canvas else len(ids) // block * block
        ids, labels = ids[:whole], labels[:whole]
    return {"input_ids": ids, "labels": labels} if any(label != IGNORED for label in labels) else None


def split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Text to train on, and text that is held out."""
    return [row for number, row in enumerate(rows) if number % EVERY], list(rows[::EVERY])


def unfilled(row: Row) -> Row:
    """Without the ends of text behind the first one at its end."""
    ids, end = row["input_ids"], len(row["input_ids"])
    while end > 1 and ids[end - 1] == ids[end - 2] == ids[-1]:
        end -= 1
    return {name: value[:end] for name, value in row.items()}


def learnt(row: Row) -> int:
    """Tokens that are predicted from others."""
    return sum(label != IGNORED for label in row["labels"][1:])
