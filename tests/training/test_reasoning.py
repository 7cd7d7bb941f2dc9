"""The recipes of reasoning tasks: losses, orders, resumed runs, folders that the engine decodes, tables."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.presets.model import preset_of
from dllm_plugins.presets.routes import RouteReader
from dllm_plugins.reasoning import TASKS
from dllm_plugins.reasoning.task import examples
from dllm_plugins.training.__main__ import main
from dllm_plugins.training.losses import multi_granularity
from dllm_plugins.training.reasoning.data import as_data
from dllm_plugins.training.reasoning.data import in_order
from dllm_plugins.training.reasoning.data import order_of
from dllm_plugins.training.reasoning.evaluate import measure
from dllm_plugins.training.reasoning.evaluate import wilson
from dllm_plugins.training.reasoning.export import tokenizer
from dllm_plugins.training.reasoning.methods import METHODS
from dllm_plugins.training.reasoning.plots import plain
from dllm_plugins.training.reasoning.recipe import UNKNOWN
from dllm_plugins.training.reasoning.recipe import CellRecipe
from dllm_plugins.training.reasoning.recipe import words_of
from dllm_plugins.training.reasoning.shipped import rebuild
from dllm_plugins.training.reasoning.table import costs
from dllm_plugins.training.reasoning.table import lines_of
from dllm_plugins.training.reasoning.table import table
from dllm_plugins.training.reasoning.train import CellRun

TINY = CellRecipe(steps=4, examples=64, batch=16, width=16, inner=16, layers=1, heads=2, look_every=2, warm_up=1)
TASK = TASKS["path5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every method trained for four steps, on one data set."""
    place = tmp_path_factory.mktemp("cells")
    for name in METHODS:
        CellRun(place / f"path5-{name}", TASK, name, TINY).train()
    return place


@pytest.mark.parametrize("name", METHODS)
def test_a_step_follows_the_gradient_of_what_is_watched(name: str, tmp_path: Path) -> None:
    run = CellRun(tmp_path / "cell", TASK, name, replace(TINY, steps=40, learning_rate=0.01))
    before = run.held_out_loss()
    run.train(until=20)
    assert run.held_out_loss() < before


@pytest.mark.parametrize("name", METHODS)
def test_prompts_never_count_and_future_words_are_not_seen(name: str, tmp_path: Path) -> None:
    """A loss depends on the answer's words alone; left to right, a word's loss on none behind it."""
    run = CellRun(tmp_path / "cell", TASK, name, TINY)
    batch = run.batch(run.watched.rows(torch.arange(4)), 0)
    loss = METHODS[name].loss(run.model, batch)
    loss.backward()
    assert loss.isfinite()
    head: Any = run.model.lm_head.weight.grad
    assert head is not None and head.abs().sum() > 0


def test_multi_granularity_is_the_formula_of_its_source() -> None:
    """Token by token, as trainer.py adds it up."""
    generator = torch.Generator().manual_seed(0)
    logits, clean = torch.randn(3, 4, 7, generator=generator), torch.randint(7, (3, 4), generator=generator)
    open_, level = torch.rand(3, 4, generator=generator) < 0.6, torch.tensor([[0], [3], [9]])
    total = 0.0
    for row in range(3):
        for place in range(4):
            if open_[row, place]:
                loss = -torch.log_softmax(logits[row, place], -1)[clean[row, place]]
                total += float(0.25 * (1 - torch.exp(-loss)) ** 2 * loss * (10 - level[row, 0]))
    found = multi_granularity(logits, clean, open_, level, levels=10, focus=2.0)
    assert float(found) == pytest.approx(total / int(open_.sum()), rel=1e-5)


def test_answers_are_written_in_an_order_and_read_back() -> None:
    words = tuple("abcdef")
    for name in ("ar", "ar-reversed", "ar-shuffled"):
        order = order_of(METHODS[name], TASK)
        assert order[-1] == 5
        assert in_order([words[place] for place in order], order) == words
    assert order_of(METHODS["ar-reversed"], TASK) == [4, 3, 2, 1, 0, 5]
    assert order_of(METHODS["ar-shuffled"], TASK) not in ([*range(6)], [4, 3, 2, 1, 0, 5])
    assert in_order("abc", [1, 0]) == ("a", "b", "c")


def test_prompts_and_answers_shorter_than_the_longest_are_filled_up() -> None:
    """Between the two, what is filled up changes nothing: the example can be read off the row."""
    task = TASKS["countdown3"]
    asked = list(islice(examples(task, 0, test=False), 8))
    data, words = as_data(asked, task), words_of(task)
    assert data.prompts.shape == (8, task.prompt)
    assert data.answers.shape == (8, task.answer)
    for example, prompt, answer in zip(asked, data.prompts.tolist(), data.answers.tolist(), strict=True):
        assert tuple(words[word] for word in prompt if words[word] != UNKNOWN) == example.prompt
        said = [words[word] for word in answer]
        assert tuple(said[: said.index(".") + 1]) == example.answer
        assert set(said[said.index(".") :]) == {"."}
    with pytest.raises(OptionError, match="use method ar"):
        order_of(METHODS["ar-reversed"], task)


@pytest.mark.parametrize("name", ["ar", "flow"])
def test_answers_of_any_length_are_learned_and_decoded(name: str, tmp_path: Path) -> None:
    task = TASKS["countdown3"]
    run = CellRun(tmp_path / f"countdown3-{name}", task, name, TINY)
    run.train()
    assert {sum(line["of"].values()) for line in measure(run.folder, 2)} == {2}


def test_a_broken_off_run_goes_on_to_the_bit(folder: Path, tmp_path: Path) -> None:
    first = CellRun(tmp_path / "path5-mgdm", TASK, "mgdm", TINY)
    first.train(until=2)
    again = CellRun(tmp_path / "path5-mgdm", TASK, "mgdm", TINY)
    again.resume()
    assert again.steps == 2
    again.train()
    whole = torch.load(folder / "path5-mgdm" / "run.pt", weights_only=True)
    assert all(torch.equal(part, whole["model"][name]) for name, part in again.model.state_dict().items())
    assert again.best == whole["progress"]["best"]
    with pytest.raises(CheckpointError, match="use another folder"):
        CellRun(tmp_path / "path5-mgdm", TASK, "mgdm", replace(TINY, steps=5)).resume()


def test_a_cell_may_begin_with_the_weights_of_another(folder: Path, tmp_path: Path) -> None:
    run = CellRun(folder / "path5-mgdm-from-path5-ar", TASK, "mgdm", replace(TINY, begin="path5-ar"))
    whole = torch.load(folder / "path5-ar" / "run.pt", weights_only=True)["model"]
    assert all(torch.equal(part, whole[name]) for name, part in run.model.state_dict().items())
    with pytest.raises(CheckpointError, match="train path5-ar first"):
        CellRun(tmp_path / "cell", TASK, "mgdm", replace(TINY, begin="path5-ar"))


def test_all_methods_see_the_same_examples(folder: Path) -> None:
    runs = [CellRun(folder / f"path5-{name}", TASK, name, TINY) for name in ("ar", "uniform")]
    first, second = (run._rows(3) for run in runs)
    assert torch.equal(first.prompts, second.prompts)


@pytest.mark.parametrize("name", METHODS)
def test_the_engine_decodes_every_cell_in_every_way(folder: Path, name: str) -> None:
    lines = measure(folder / f"path5-{name}", 4)
    assert all(sum(line["of"].values()) == 4 for line in lines)
    assert lines_of(folder)
    assert f"| path5 | {name} |" in table(lines)


def test_commands_train_measure_and_print(tmp_path: Path) -> None:
    where = ["--folder", str(tmp_path)]
    sizes = ["--steps", "2", "--batch", "4", "--examples", "16", "--width", "16", "--inner", "16", "--layers", "1"]
    for line in (
        ["reasoning", "--task", "path5", "--method", "ar", *where, *sizes],
        ["reasoning-scores", *where, "--questions", "2"],
        ["reasoning-table", *where],
    ):
        result = CliRunner().invoke(main, line, catch_exceptions=False)
        assert result.exit_code == 0
    assert "| path5 | ar | left to right | 6.0 | 0.0%" in result.output
    assert "| path5-ar | 0 | " in result.output
    log = (tmp_path / "path5-ar" / "log.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["step"] == 2


def test_the_shipped_model_is_rebuilt_and_answers(tmp_path: Path) -> None:
    """Two cells in turn; what is written loads without the recipes' families."""
    rebuild(tmp_path / "cells", tmp_path / "out", TINY, steps=(2, 2))
    model = preset_of("dllm-tiny", "paths", str(tmp_path / "out"), RouteReader(5), {"steps": 3}).load(LoadOptions())
    request = model.text_request("a>b b>c c>d d>e f>g g>c c>h h>i ? a e")
    [answer] = model.engine().generate([request])
    assert answer.usage.total_passes <= 3
    assert str(answer.usage.verdict).startswith(("wrong", "unfinished"))
    assert (tmp_path / "cells" / "path5-mdm-unshifted-from-path5-ar" / "run.pt").exists()


def measured(folder: Path, cell: str, seed: int, right: dict[str, int]) -> None:
    """Write down a cell by hand: two steps of eight examples and one way."""
    (folder / cell / "model").mkdir(parents=True)
    about = {"task": "path5", "seed": seed, "batch": 8, "begin": "path5-ar" if "from" in cell else ""}
    (folder / cell / "model" / "cell.json").write_text(json.dumps(about))
    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(7)}, folder / cell / "model" / "model.safetensors")
    curve = [{"step": 1, "minutes": 0.5, "held_out": 0.25}, {"step": 2, "minutes": 1.0, "held_out": 0.75}]
    (folder / cell / "log.jsonl").write_text("\n".join(map(json.dumps, curve)))
    line = {"task": "path5", "seed": seed, "method": "ar", "way": "left to right", "asked": 6, "passes": 6.0}
    (folder / cell / "scores.json").write_text(json.dumps([{**line, "right": right, "of": {"0": 4, "1": 4}}]))


def test_tables_tell_costs_with_those_of_the_cell_begun_with_and_seeds_side_by_side(tmp_path: Path) -> None:
    measured(tmp_path / "a", "path5-ar", 0, {"0": 1, "1": 3})
    measured(tmp_path / "b", "path5-ar", 1, {"0": 4, "1": 3})
    measured(tmp_path / "b", "path5-mdm-from-path5-ar", 1, {"0": 4, "1": 4})
    (tmp_path / "b" / "path5-mdm-from-path5-ar" / "scores.json").unlink()
    words = 2 * 2 * 8 * (TASK.prompt + TASK.answer) / 1e6
    row = f"| path5-mdm-from-path5-ar | 1 | 22 | 32 | {words:.1f} M | 2.0 | 0.250 | 1 |"
    assert row in costs(tmp_path / "b").splitlines()
    lines = [line for name in "ab" for line in lines_of(tmp_path / name)]
    low, high = (f"{end:.1%}" for end in wilson(4, 8))
    assert f"| path5 | ar | left to right | 6.0 | 50.0% ({low} to {high}) | 25% | 75% | 87.5% |" in table(lines)
    assert "| 0 | 1 | seed 1 |" in table(lines)


def test_the_plot_shows_every_trained_cell_and_its_bytes_depend_on_numbers_alone(folder: Path, tmp_path: Path) -> None:
    for name in METHODS:
        if not (folder / f"path5-{name}" / "scores.json").exists():
            measure(folder / f"path5-{name}", 4)
    for name in ("first", "second"):
        line = ["reasoning-plot", "--folder", str(folder), "--task", "path5", "--out", str(tmp_path / name)]
        assert CliRunner().invoke(main, line, catch_exceptions=False).exit_code == 0
    drawn = (tmp_path / "first").read_text()
    assert drawn == (tmp_path / "second").read_text()
    assert all(f">path5-{name}</text>" in drawn and f">{name}</text>" in drawn for name in METHODS)
    empty = ["reasoning-plot", "--folder", str(tmp_path), "--task", "path5", "--out", str(tmp_path / "third")]
    result = CliRunner().invoke(main, empty)
    assert result.exit_code == 1
    assert "run reasoning-scores first" in result.output


def test_one_way_stands_for_a_model_in_the_plot() -> None:
    def line(way: str, asked: int) -> dict[str, Any]:
        return {"method": "mdm", "way": way, "asked": asked}

    lines = [line("left to right", 6), line("surest first", 1), line("surest first", 6), line("random order", 6)]
    assert plain(lines, "mdm") == line("surest first", 6)
    assert plain(lines[:1], "mdm") == line("left to right", 6)


@pytest.mark.parametrize("name", TASKS)
def test_tokenizers_read_and_write_every_word(name: str) -> None:
    """Questions and answers of every task, each word its one token."""
    task = TASKS[name]
    ids = {word: number for number, word in enumerate(words_of(task))}
    spoken = tokenizer(task)
    for example in islice(examples(task, 3, test=False), 3):
        for words in (example.prompt, example.answer):
            tokens = spoken(" ".join(words), add_special_tokens=False)["input_ids"]
            assert tokens == [ids[word] for word in words]
            assert str(spoken.decode(tokens)).split() in ([*words], ["".join(words)])


def test_intervals_are_wilsons() -> None:
    """Against values of scipy.stats.binomtest(...).proportion_ci(method="wilson")."""
    from scipy.stats import binomtest

    for right, asked in ((0, 10), (10, 10), (37, 200)):
        interval = binomtest(right, asked).proportion_ci(method="wilson")
        assert wilson(right, asked) == pytest.approx((interval.low, interval.high), abs=1e-6)
