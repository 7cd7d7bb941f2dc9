"""Training text: the base's own answers, whoever makes them, and however often that is broken off."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM

from dllm_plugins.errors import CheckpointError
from dllm_plugins.training.__main__ import main
from dllm_plugins.training.answers import BaseAnswers
from dllm_plugins.training.answers import Wishes
from dllm_plugins.training.base import FrozenBase
from dllm_plugins.training.base import model_of
from dllm_plugins.training.base import open_base
from dllm_plugins.training.corpus import Corpus

from ..default_model.bases import make_base

CHATS = [(number, [{"role": "user", "content": f"Say {number}."}]) for number in range(7)]
WISHES = Wishes(rows=3, longest=12, sampled=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of another family than the default model's."""
    return make_base(tmp_path_factory.mktemp("corpus") / "base", "qwen2")


@pytest.fixture(scope="module")
def base(folder: Path) -> FrozenBase:
    return open_base(folder, "float32", "cpu")


def lines(path: Path) -> list[Any]:
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


def test_answers_are_the_base_s_in_any_company(base: FrozenBase) -> None:
    """Greedy ones are those of transformers; all are the same alone and together, greedy and drawn."""
    together = {item.number: item for item in BaseAnswers(model_of(base), WISHES)(CHATS)}
    one_by_one = BaseAnswers(model_of(base), Wishes(**{**_fields(WISHES), "rows": 1}))(CHATS)
    assert {item.number: item for item in one_by_one} == together
    assert {item.temperature for item in together.values()} == {0.0, 0.8}
    theirs = AutoModelForCausalLM.from_pretrained(base.place, dtype=torch.float32, trust_remote_code=False)
    for item in together.values():
        assert item.prompt == tuple(
            base.tokenizer.apply_chat_template(item.chat, add_generation_prompt=True)["input_ids"]
        )
        if not item.temperature:
            whole = theirs.generate(torch.tensor([item.prompt]), max_new_tokens=12, do_sample=False, pad_token_id=0)
            assert whole[0, len(item.prompt) :].tolist() == list(item.tokens)


def _fields(wishes: Wishes) -> dict[str, Any]:
    return {name: getattr(wishes, name) for name in wishes.__slots__}


def test_whole_answers_are_asked_about(base: FrozenBase) -> None:
    """With the answer's text in the chat; never one that was cut, and no more than so many turns."""
    ends = next(item for item in BaseAnswers(model_of(base), Wishes(longest=40, sampled=0.0))(CHATS[:1]))
    stopping = FrozenBase(
        **{**{name: getattr(base, name) for name in base.__slots__}, "stops": frozenset({ends.tokens[5]})}
    )
    wishes = Wishes(longest=40, sampled=0.0, follow_up=1.0, turns=2)
    found = list(BaseAnswers(model_of(stopping), wishes)(CHATS[:1]))
    assert [len(item.chat) for item in found][:2] == [1, 3]
    assert found[0].tokens[-1] == ends.tokens[5]
    assert found[1].chat[1]["role"] == "assistant"
    assert max(len(item.chat) for item in found) == 3
    cut = Wishes(longest=3, sampled=0.0, follow_up=1.0)
    assert len(list(BaseAnswers(model_of(stopping), cut)(CHATS[:1]))) == 1


def test_a_base_without_a_template_goes_on_from_the_prompt(base: FrozenBase) -> None:
    """It was never taught to chat."""
    template, base.tokenizer.chat_template = base.tokenizer.chat_template, None
    try:
        (found,) = BaseAnswers(model_of(base), WISHES)(CHATS[:1])
    finally:
        base.tokenizer.chat_template = template
    assert base.tokenizer.decode(found.prompt) == "Say 0.\n"


def test_what_was_broken_off_is_made_again(base: FrozenBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are whole or not there, and their bytes do not tell who made them, nor with how many rows."""
    told: list[str] = []
    once = Corpus(tmp_path / "once", WISHES, prompts=6)
    assert once.make(base, 200, told.append) == once.tokens() >= 200
    assert "a CPU-second" in told[0]
    parts = Corpus(tmp_path / "parts", Wishes(**{**_fields(WISHES), "rows": 5}), prompts=6)

    def interrupted(answers: Iterator[Any]) -> Iterator[Any]:
        yield next(answers)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        ask = BaseAnswers.__call__
        patch.setattr(BaseAnswers, "__call__", lambda self, chats: interrupted(ask(self, chats)))
        with pytest.raises(KeyboardInterrupt):
            parts.make(base, 1)
    assert parts.tokens() == 0
    parts.make(base, 1)
    assert len(parts.files()) == 1
    parts.make(base, 200)
    assert [path.name for path in parts.files()] == [path.name for path in once.files()]
    for mine, other in zip(once.files(), parts.files(), strict=True):
        assert sorted(map(str, lines(mine))) == sorted(map(str, lines(other)))


@pytest.mark.parametrize("change", [{"seed": 1}, {"prompts": 7}, {"wishes": Wishes(longest=13)}], ids=str)
def test_a_folder_of_other_text_is_refused(base: FrozenBase, tmp_path: Path, change: dict[str, Any]) -> None:
    """What is not said of a file would be lost."""
    Corpus(tmp_path, WISHES, prompts=2).make(base, 1)
    name = next(iter(change))
    with pytest.raises(CheckpointError, match=f"another {name}.* --folder"):
        Corpus(tmp_path, **{"wishes": WISHES, "prompts": 2, **change}).make(base, 1)


def test_another_base_s_folder_is_refused(base: FrozenBase, tmp_path: Path) -> None:
    """Of the same shape, too."""
    Corpus(tmp_path / "text", WISHES, prompts=2).make(base, 1)
    other = open_base(make_base(tmp_path / "base", "qwen2", seed=1), "float32", "cpu")
    with pytest.raises(CheckpointError, match="belongs to the base base, whose embedding is another"):
        Corpus(tmp_path / "text", WISHES, prompts=2).make(other, 1)


def test_commands(folder: Path, tmp_path: Path) -> None:
    """Text, and the held-out text, of a base."""
    given = ["corpus", "--base", str(folder), "--folder", str(tmp_path / "text"), "--dtype", "float32"]
    given += ["--tokens", "20", "--prompts", "2", "--longest", "10", "--rows", "4"]
    done = CliRunner().invoke(main, given, catch_exceptions=False)
    assert "answers-00000.jsonl.gz" in done.output
    out = tmp_path / "new" / "held-out.jsonl.gz"
    CliRunner().invoke(main, ["held-out", "--base", str(folder), "--out", str(out)], catch_exceptions=False)
    assert len(lines(out)) > 60
    assert {line["t"] for line in lines(out)} == {0.0}
