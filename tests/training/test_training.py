"""The recipe on the tiny model: rows, loss, resuming, and that it learns."""

import gzip
import json
import random
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from dllm_plugins import load_model
from dllm_plugins.denoisers.low_rank import FORMAT
from dllm_plugins.errors import CheckpointError
from dllm_plugins.training.base import open_base
from dllm_plugins.training.batches import GROUP
from dllm_plugins.training.batches import TrainingRow
from dllm_plugins.training.batches import TrainingText
from dllm_plugins.training.batches import block_rows
from dllm_plugins.training.batches import collate
from dllm_plugins.training.batches import group_rows
from dllm_plugins.training.batches import read_answers
from dllm_plugins.training.batches import suffix_rows
from dllm_plugins.training.decode import doubled_words
from dllm_plugins.training.evaluate import _walk
from dllm_plugins.training.train import Recipe
from dllm_plugins.training.train import TrainingRun
from dllm_plugins.training.workers import Workers

ANSWER = TrainingText(list(range(10, 70)), 12)


@pytest.mark.parametrize("make", [group_rows, block_rows, suffix_rows])
def test_rows_follow_the_geometry(make: object) -> None:
    """Open rows begin two places behind the last clean token; a suffix is committed and lies to the right."""
    for seed in range(20):
        rows: list[TrainingRow] = make(ANSWER, random.Random(seed))  # type: ignore[operator]
        assert rows
        for row in rows:
            assert ANSWER.prompt - 1 <= row.sees < row.position < len(ANSWER.tokens)
            assert row.position - row.sees >= 2
            if row.open:
                assert row.position == row.sees + 2 + row.offset
        if make is group_rows:
            assert all(row.open and row.offset < GROUP for row in rows)
        else:
            assert any(row.open for row in rows)


def test_mask_of_a_batch() -> None:
    """Open rows see the prefix and their whole block, committed rows look left only, blocks are apart."""
    rows = [
        TrainingRow(3, 1, 0, 0, True),
        TrainingRow(4, 1, 0, 1, False),
        TrainingRow(5, 1, 0, 2, False),
        TrainingRow(6, 4, 1, 0, True),
    ]
    batch = collate([TrainingText(list(range(8)), 1), TrainingText(list(range(5)), 1)], [rows, rows[:1]])
    mask = batch.mask[0, 0].int().tolist()
    prefix = [[1, 1, 0, 0, 0, 0, 0, 0]] * 3 + [[1, 1, 1, 1, 1, 0, 0, 0]]
    canvas = [[1, 1, 1, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    assert mask == [left + right for left, right in zip(prefix, canvas, strict=True)]
    assert not batch.open[1, 1:].any()
    assert batch.mask[1, 0].any(-1).all()


def test_walk_counts_passes_like_a_decoder() -> None:
    """Each pass yields one token and the run of right drafts behind it."""
    assert _walk([[False] * 4] * 9, 10) == 10
    assert _walk([[True] * 4] * 9, 10) == 3
    assert _walk([[True, False, True, True]] * 9, 10) == 6


def test_doubled_words() -> None:
    """Counts words written twice in a row, not numbers."""
    assert doubled_words("let you know know that that 1 1 end") == 2


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Training text with a pattern that is easy to learn."""
    path = tmp_path / "answers-1.jsonl.gz"
    with gzip.open(path, "wt") as file:
        for start in range(40):
            answer = [10 + (start + 3 * i) % 60 for i in range(40)]
            file.write(json.dumps({"p": [1, 5, 6], "r": answer}) + "\n")
    return path


def make_run(folder: Path, text: Path, out: Path, minutes: float) -> TrainingRun:
    """A run on the tiny model."""
    recipe = Recipe(minutes=minutes, rank=4, chain=24, answers=8, evaluate_every=1000, frequent=64, noise_tokens=16)
    return begun(folder, text, out, recipe)


def begun(folder: Path, text: Path, out: Path, recipe: Recipe) -> TrainingRun:
    """A run on the CPU."""
    base = open_base(folder, "float32", "cpu")
    return TrainingRun(base, [text], [text], out, recipe, False, Workers(torch.device("cpu")))


@pytest.mark.slow
def test_training_learns_resumes_and_exports(tiny_folder: Path, text: Path, tmp_path: Path) -> None:
    """The loss falls, a resumed run goes on where it was, and the engine loads what is written."""
    run = make_run(tiny_folder, text, tmp_path / "run", 10)
    answers = read_answers([text])
    losses = [run.step(answers[:8])["group_chain"] for _ in range(60)]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    run.progress.seconds = 30.0
    run.save()
    again = make_run(tiny_folder, text, tmp_path / "run", 10)
    again.resume(None)
    assert again.progress == run.progress
    for name, weight in run.denoiser.weights.items():
        assert torch.equal(weight, again.denoiser.weights[name])
    assert again.step(answers[:8])["group_chain"] < losses[0]
    exported = tmp_path / "run" / "denoiser.safetensors"
    with safe_open(exported, framework="pt") as file:
        assert file.metadata()["format"] == FORMAT
        assert file.metadata()["steps"] == "60"
        assert file.get_tensor("draft_tokens").dtype == torch.int32
    assert load_model(base=tiny_folder, denoiser=exported, dtype="float32").denoiser.spec.draft_head
    fresh = make_run(tiny_folder, text, tmp_path / "other", 10)
    fresh.resume(exported)
    near = fresh.denoiser.weights["chain__up"] - run.denoiser.weights["chain__up"]
    assert float(near.detach().abs().max()) < 1e-2


def test_training_stops_in_time_and_logs(tiny_folder: Path, text: Path, tmp_path: Path) -> None:
    """`minutes` ends the run; the log has one JSON object a line, the last one an evaluation."""
    run = make_run(tiny_folder, text, tmp_path / "run", 0.02)
    run.train()
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["tokens_per_pass"] >= 0.9
    assert len(lines[-1]["accuracy"]) == GROUP
    assert 0.02 <= run.progress.seconds / 60 < 0.2


def test_weights_of_another_shape_are_refused(tiny_folder: Path, text: Path, tmp_path: Path) -> None:
    """Resuming from weights of another rank names the mismatch."""
    run = make_run(tiny_folder, text, tmp_path / "run", 1)
    other = tmp_path / "other.safetensors"
    smaller = begun(tiny_folder, text, tmp_path / "smaller", Recipe(minutes=1, rank=2, chain=24))
    smaller.save()
    (tmp_path / "smaller" / "denoiser.safetensors").rename(other)
    with pytest.raises(CheckpointError, match="do not fit"):
        run.resume(other)
