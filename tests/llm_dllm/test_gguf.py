"""GGUF files in llm: `llm dllm gguf`, `add`, by path, and killed half way."""

import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import llm
import pytest
from click.testing import Result

from dllm_plugins.errors import GgufError
from llm_dllm import DLLM
from llm_dllm.named_files import named_files
from llm_dllm.registry import entries

Run = Callable[..., Result]
Make = Callable[..., Path]
SDAR = "sdar"


def named(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[Path, set[str]]:
    """The files that llm would know, called like this."""
    monkeypatch.setattr(sys, "argv", ["llm", *arguments])
    return named_files()


def test_files_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However they are spelled, once each; others of that ending, missing ones and prompts are not meant."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF")
    (tmp_path / "folder.gguf").mkdir()
    file = file.resolve()
    for spelled in ("x.gguf", "./x.gguf", "~/x.gguf", str(file)):
        for arguments in (["-m", spelled], [f"-m{spelled}"], [f"--model={spelled}"], ["chat", "-m", spelled, "-u"]):
            assert named(monkeypatch, *arguments) == {file: {spelled}}
    assert named(monkeypatch, "x.gguf", "./x.gguf") == {file: {"x.gguf", "./x.gguf"}}
    nothing = ("y.gguf", "folder.gguf", "~nobody/x.gguf", "what is " * 500 + "x.gguf", "x", "\0.gguf")
    assert named(monkeypatch, *nothing) == {}


def test_files_that_settings_and_the_log_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alias, the default model, and the conversation that goes on; damaged settings are llm's to report."""
    paths = []
    for name in ("alias", "default", "old", "new"):
        paths.append((tmp_path / f"{name}.gguf").resolve())
        paths[-1].write_bytes(b"GGUF")
    user = llm.user_dir()  # type: ignore[no-untyped-call]
    assert named(monkeypatch, "-m", "short") == {}
    (user / "aliases.json").write_text(f'{{"short": "{paths[0]}", "other": "gpt-4o"}}')
    (user / "default_model.txt").write_text(str(paths[1]))
    # An older llm's has fewer tables.
    (user / "logs.db").unlink()
    with sqlite3.connect(user / "logs.db") as database:
        database.execute("create table conversations (id text, model text)")
        database.executemany("insert into conversations values (?, ?)", [("1", str(paths[2])), ("2", "gpt-4o")])
    assert named(monkeypatch, "-m", "short") == {path: {str(path)} for path in paths[:2]}
    assert named(monkeypatch, "-c", "more") == {path: {str(path)} for path in paths[:3]}
    with sqlite3.connect(user / "logs.db") as database:
        database.execute("create table turns (id text, model text)")
        database.execute("insert into turns values ('1', ?)", [str(paths[3])])
    for given in (["--cid", "1"], ["--cid=1"], ["chat", "--continue"]):
        assert named(monkeypatch, *given, "more") == {path: {str(path)} for path in paths}
    (user / "default_model.txt").unlink()
    for damaged in ("{", "[" * 100_000, '{"a":' * 2000 + "1" + "}" * 2000):
        (user / "aliases.json").write_text(damaged)
        assert named(monkeypatch, "hello") == {}


def test_a_named_file_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is where it is, so that a log means the same from any folder."""
    path = (tmp_path / "x.gguf").resolve()
    path.write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["llm", "-m", "./x.gguf"])
    model = llm.get_model("./x.gguf")
    assert isinstance(model, DLLM)
    assert model.model_id == str(path)
    assert model.choice.place == str(path)
    assert model.choice.load_options() == {"dtype": "float32"}
    assert llm.get_async_model("./x.gguf").model_id == str(path)


def test_add_needs_the_header_only(sdar: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is the file's, or as given, on either side; what is known is shown."""

    def missing() -> None:
        raise GgufError("not asked for")

    monkeypatch.setattr("dllm_plugins.llama_cpp.load.library", missing)
    run("dllm", "add", str(sdar))
    run("dllm", "add", str(sdar), "mine")
    run("dllm", "add", str(sdar), "--name", "other")
    run("dllm", "add", str(sdar), "third", "--name", "third")
    assert "given twice" in run("dllm", "add", str(sdar), "one", "--name", "two", code=1).output
    assert set(entries()) == {"sdar", "mine", "other", "third"}
    assert entries()["mine"].preset == SDAR
    shown = run("dllm", "models").stdout
    for words in (str(sdar), "block-causal", "exact", f"{sdar.stat().st_size / 1000:.4g} kB on disk"):
        assert words in shown
    assert str(sdar) in run("dllm", "remove", "third").stdout
    assert sdar.exists()


def test_what_cannot_be_added(fitting: Make, run: Run, tmp_path: Path) -> None:
    """One line each, in the command's own words."""
    bare = tmp_path / "bare.gguf"
    run("dllm", "gguf", str(fitting(SDAR, "tokenizer.json", "tokenizer_config.json")), str(bare), "--quant", "F32")
    (tmp_path / "text.gguf").write_text("GGuf")
    (tmp_path / "short.gguf").write_bytes(bare.read_bytes()[:-100])
    for arguments, words in (
        ([str(bare)], "tokenizer"),
        ([str(tmp_path / "text.gguf")], "not a GGUF file"),
        ([str(tmp_path / "short.gguf")], "truncated"),
        ([str(tmp_path / "none.gguf")], "none.gguf"),
        ([str(bare), "--family", "dream"], "dream"),
    ):
        output = run("dllm", "add", *arguments, code=1).output
        assert words in output
        assert len(output.strip().splitlines()) == 1
    assert entries() == {}


def test_a_family_that_llama_cpp_cannot_order(
    fitting: Make, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WeDLM: our kernels compute it, and `info` says so; llama.cpp is asked for in vain."""
    place = fitting(SDAR)
    config = json.loads((place / "config.json").read_text())
    wedlm = {"architectures": ["WeDLMForCausalLM"], "model_type": "wedlm", "qk_norm": True, "mask_token_id": 206}
    (place / "config.json").write_text(json.dumps(config | wedlm))
    out = tmp_path / "wedlm.gguf"
    run("dllm", "gguf", str(place), str(out), "--quant", "F32")
    run("dllm", "add", str(out), "mine")
    shown = run("dllm", "info", "-m", "mine").stdout
    assert "backend   kernels: llama.cpp takes positions in order only" in shown
    answer = ["-m", "mine", "how?", "-o", "max_tokens", "4"]
    run(*answer)
    monkeypatch.setenv("DLLM_BACKEND", "llama_cpp")
    assert "positions in order only; leave its backend out" in run(*answer, code=1).output


def test_bars_on_a_terminal(fitting: Make, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One a stage, up to the end."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = run("dllm", "gguf", str(fitting(SDAR)), str(tmp_path / "x.gguf"), "--quant", "F32").stderr
    assert "Writing" in shown
    assert "100%" in shown


def test_gguf_writes_over_nothing(sdar: Path, fitting: Make, run: Run, tmp_path: Path) -> None:
    """Unless it is told to; folders, unknown types and what cannot be represented are refused."""
    before = sdar.read_bytes()
    folder = str(tmp_path / SDAR)
    assert "--force" in run("dllm", "gguf", folder, str(sdar), "--quant", "Q8_0", code=1).output
    assert sdar.read_bytes() == before
    assert "no folder" in run("dllm", "gguf", folder, str(tmp_path / "nowhere" / "x.gguf"), code=1).output
    assert "DLLM_BACKEND=llama_cpp" in run("dllm", "gguf", "dllm", str(tmp_path / "x.gguf"), code=1).output
    assert "Q4_0" in run("dllm", "gguf", folder, str(tmp_path / "x.gguf"), "--quant", "Q5_X", code=1).output
    masks = str(fitting("llada_dense", "mask_token_id"))
    assert "--mask-id" in run("dllm", "gguf", masks, str(tmp_path / "y.gguf"), "--quant", "F32", code=1).output
    assert not (tmp_path / "y.gguf").exists()
    run("dllm", "gguf", masks, str(tmp_path / "y.gguf"), "--quant", "F32", "--mask-id", "236")
    run("dllm", "gguf", folder, str(sdar), "--quant", "bf16", "--force")
    assert len(sdar.read_bytes()) < len(before)
    assert {path.suffix for path in tmp_path.glob("*gguf*")} == {".gguf"}
