"""The `llm` program with the tiny model behind it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llm
import pytest
from click.testing import CliRunner
from click.testing import Result
from llm.cli import cli

from llm_dllm.loading import loaded_model

from ..gguf.spoken import give_tokenizer
from ..golden.cases import CLONED

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def tiny_llm(tiny_folder: Path, llm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty llm folder, and the tiny model in place of the default one."""
    assert llm_folder.exists()
    monkeypatch.setenv("DLLM_BASE", str(tiny_folder))
    monkeypatch.setenv("DLLM_DENOISER", str(tiny_folder.parent / "denoiser.safetensors"))
    monkeypatch.setenv("DLLM_DTYPE", "float32")


@pytest.fixture
def run() -> Run:
    """Call `llm` with arguments."""

    def call(*arguments: str, code: int = 0, **options: Any) -> Result:
        result = CliRunner().invoke(cli, arguments, **options)
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return call


@pytest.fixture
def answer() -> Callable[..., str]:
    """What the engine itself answers."""

    def call(chat: list[dict[str, str]], **options: Any) -> str:
        from dllm_plugins import Request
        from dllm_plugins import SamplingConfig

        model = loaded_model().model
        return model.engine().generate([Request(model.encode_chat(chat), SamplingConfig(**options))])[0].text

    return call


@pytest.fixture
def dllm() -> llm.Model:
    """The registered model."""
    return llm.get_model("dllm")


@pytest.fixture
def checkpoint(tiny_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """A tiny checkpoint of a family as users would have it; `without` leaves files or config keys out."""

    def make(case: str, *without: str) -> Path:
        place = tmp_path / case
        shutil.copytree(CLONED[case] / "checkpoint", place)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            if name not in without:
                shutil.copy(tiny_folder / name, place)
        config = json.loads((place / "config.json").read_text())
        kept = {name: value for name, value in config.items() if name not in without}
        (place / "config.json").write_text(json.dumps(kept))
        return place

    return make


@pytest.fixture
def fitting(checkpoint: Callable[..., Path], tiny_folder: Path) -> Callable[..., Path]:
    """A tiny checkpoint whose tokenizer has no more tokens than the embedding, as llama.cpp wants it."""

    def make(case: str, *without: str) -> Path:
        place = checkpoint(case, *without)
        give_tokenizer(place, tiny_folder, *without)
        return place

    return make


@pytest.fixture
def sdar(fitting: Callable[..., Path], run: Run, tmp_path: Path) -> Path:
    """A tiny SDAR as a float32 file, written by the command."""
    out = tmp_path / "sdar.gguf"
    shown = run("dllm", "gguf", str(fitting("sdar")), str(out), "--quant", "F32")
    assert f"Wrote {out}" in shown.stdout
    assert "Writing ..." in shown.stderr
    return out
