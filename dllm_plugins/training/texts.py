"""Where training text is: what ships for the default base, what `corpus` made for others, what is held out."""

from collections.abc import Sequence
from pathlib import Path

import click

from dllm_plugins.files.whole import beside
from dllm_plugins.training.answers import BaseAnswers
from dllm_plugins.training.answers import Wishes
from dllm_plugins.training.base import FrozenBase
from dllm_plugins.training.base import model_of
from dllm_plugins.training.corpus import text_in
from dllm_plugins.training.corpus import write_answers
from dllm_plugins.training.evaluation_prompts import HELD_OUT

DATA = Path(__file__).parent / "data"
HELD_OUT_TEXT = DATA / "held-out.jsonl.gz"
#: Answers of the default base.
SHIPPED = tuple(sorted(DATA.glob("answers-*.jsonl.gz")))


def write_held_out(base: FrozenBase, out: Path) -> None:
    """Write the greedy answers to the held-out prompts, at most 96 tokens each."""
    wishes = Wishes(rows=len(HELD_OUT), longest=96, sampled=0.0, follow_up=0.0)
    chats = [(number, [{"role": "user", "content": prompt}]) for number, prompt in enumerate(HELD_OUT)]
    with beside(folder_of(out.parent) / out.name) as part:
        write_answers(part, BaseAnswers(model_of(base), wishes)(chats))


def text_of(found: FrozenBase, base: str | None, folders: Sequence[Path]) -> list[Path]:
    """The files of training text.

    :raises click.UsageError: if there are none.
    :raises CheckpointError: for text of another base.
    """
    own = SHIPPED if base is None and not folders else ()
    files = [*own, *(file for folder in folders for file in text_in(folder, found))]
    if not files:
        raise click.UsageError("there is no text to train on; make some with `corpus`, and name its folder as --text")
    return files


def folder_of(folder: Path) -> Path:
    """The folder, made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder
