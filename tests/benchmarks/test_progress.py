"""A reader of a benchmark sees each row once it is there, and an interrupted run keeps what it measured."""

import importlib.util
import io
import json
import subprocess
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import redirect_stdout
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner

import block_pass
import growth
import memory
from block_rows import Setting as Sizes
from gguf_bench import command
from gguf_bench.turns import Decoded
from gguf_bench.turns import Setting
from gguf_bench.turns import Side
from gguf_bench.turns import compare
from harness import Answer
from harness import Decode
from harness import compared
from peers import run
from progress import keep
from progress import track

PAIRS = {"a_vs_b": ("a", "b")}


@contextmanager
def leaving() -> Iterator[io.BytesIO]:
    """What leaves the process: a standard output that, as a pipe's, holds back what is not flushed."""
    raw = io.BytesIO()
    # Not closed, which would flush it.
    with redirect_stdout(io.TextIOWrapper(io.BufferedWriter(raw, 1 << 20))):
        yield raw


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Scripts set their number."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def answering(fail_at: int | None = None, look: Callable[[], None] = lambda: None) -> Decode:
    """A contestant that answers at once, and is interrupted in that call, from 1; the first only warms up."""
    calls = 0

    def decode(prompt: str) -> Answer:
        nonlocal calls
        calls += 1
        look()
        if calls == fail_at:
            raise KeyboardInterrupt
        return Answer(prompt, 4, 2, 8)

    return decode


def test_every_answer_is_told_before_the_next_begins() -> None:
    seen: list[int] = []
    with leaving() as out:
        look = answering(look=lambda: seen.append(out.getvalue().count(b"ms/token")))
        compared({"a": look, "b": look}, PAIRS, ["one", "two"], rounds=2)
        assert seen == [0, 0, *range(8)]
        assert b"| a_vs_b |" in out.getvalue()


def test_an_interrupted_race_keeps_the_prompts_that_all_have_answered(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('["old"]')
    with leaving() as out:
        with pytest.raises(KeyboardInterrupt):
            compared({"a": answering(), "b": answering(fail_at=4)}, PAIRS, ["one", "two", "three"], 1, path)
        assert b"Medians over 2 of 3 prompts" in out.getvalue()
    [row] = json.loads(path.read_text())
    assert (row["name"], row["answers"], row["tokens"]) == ("a_vs_b", 2, 8)


def test_nothing_measured_leaves_no_old_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.json"
    path.write_text('["old"]')
    with pytest.raises(KeyboardInterrupt):
        compared({"a": answering(fail_at=2), "b": answering()}, PAIRS, ["one"], 1, path)
    assert json.loads(path.read_text()) == []
    assert "Medians" not in capsys.readouterr().out


def interrupted(*rows: Any) -> Iterator[Any]:
    """Rows, and then Ctrl-C."""
    yield from rows
    raise KeyboardInterrupt


def gguf_row() -> Any:
    one = Side(Decoded((1, 2), 2, 4, 0.5), 0.5)
    return compare("row", one, one, Setting("dream", "tiny", "F32", 7, 1, 8, 2), "how", "same tokens")


@dataclass
class Script:
    """One that measures row by row: what makes its rows, and what it shows of the first."""

    module: ModuleType
    maker: str
    made: Callable[..., Any]
    shown: str
    arguments: tuple[str, ...] = ()


BLOCK = replace(Sizes(1, 1, 1, None), rows=3).row("row", 1.0, 2.0, "bfloat16", "exact")
POINT = growth.Point(128, 1, 1.0, 6.5, {"forward": 6.5})
SCRIPTS = {
    "gguf_files": Script(command, "cases", lambda *_: interrupted(gguf_row()), "| `row` tiny F32 |"),
    "peers": Script(run, "made", lambda *_: interrupted(run.Row(**ROW)), "| row | 1.00 s |"),
    "block_pass": Script(block_pass, "comparisons", lambda *_: {"bf16": lambda: interrupted(BLOCK)}, "| `row` | 1.00"),
    "growth": Script(growth, "measure", lambda *_: interrupted(POINT), "prefix 128, rows 1: 6.5 ms"),
}
ROW: dict[str, Any] = dict.fromkeys(run.Row.__dataclass_fields__, 0)
ROW |= {"name": "row", "ours": 1.0, "theirs": 1.0, "exactness": "same tokens"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_interrupted_script_has_shown_and_kept_its_rows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, path = SCRIPTS[name], tmp_path / "rows.json"
    monkeypatch.setattr(script.module, script.maker, script.made)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(command, "limit", lambda threads: None)
    monkeypatch.setattr(growth, "default_model", lambda dtype, backend: None)
    found = CliRunner().invoke(script.module.main, ["--threads", "1", "--json", str(path)])
    assert found.exit_code == 1
    assert "Aborted!" in found.stderr
    assert script.shown in found.stdout
    kept = json.loads(path.read_text())
    assert len(kept["points"] if name == "growth" else kept) == 1


def test_memory_is_told_setting_by_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is measured by a process of its own; the second one is interrupted."""
    path, calls = tmp_path / "rows.json", 0
    item = memory.Memory("memory/row", 1, 4096, "bfloat16", "kernels", 1, 7, 7, 7, 7, 7, 7, 0.5, 0.5)

    def process(arguments: list[str], **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return type("Done", (), {"stdout": json.dumps({n: getattr(item, n) for n in item.__dataclass_fields__})})

    monkeypatch.setattr(subprocess, "run", process)
    monkeypatch.setattr(memory, "ROLLUP", tmp_path)
    assert isinstance(memory.main, click.Command)
    found = CliRunner().invoke(memory.main, ["--threads", "1", "--json", str(path)])
    assert "| 1 x 4,096 | bfloat16 |" in found.stdout
    assert [row["name"] for row in json.loads(path.read_text())] == ["memory/row"]


def test_an_unfinished_table_of_growth_has_gaps() -> None:
    shown = growth.tables([POINT, replace(POINT, rows=2), replace(POINT, prefix=256)], "Here.")
    assert "| 256 | 6.5 |  |" in shown


def test_progress_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, about ten lines, and nothing on standard output."""
    assert list(track(range(95), "measuring")) == list(range(95))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[:2] == ["measuring: 0 of 95 done", "measuring: 10 of 95 done"]
    assert len(shown.err.splitlines()) == 10


def test_nothing_is_kept_without_a_path() -> None:
    keep([BLOCK], None)
