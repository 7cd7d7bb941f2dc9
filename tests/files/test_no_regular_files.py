"""Where a file is expected and a pipe or a device stands: every reader refuses it at once."""

import faulthandler
import os
import shutil
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dllm_plugins import load_model
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import DllmError
from dllm_plugins.families.files import load_tokenizer
from dllm_plugins.gguf.opened import open_gguf
from dllm_plugins.llama_cpp.convert import convert
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.models import auto_backend
from dllm_plugins.rules.corpus import frequencies
from dllm_transformers import DiffusionModelForCausalLM
from dllm_transformers import export
from llm_dllm.checkpoints import entry_of

NAMED: dict[str, Any] = {"family": "diffullama", "mask_id": 258}
LOADERS: dict[str, Callable[[Path, Path], object]] = {
    "load_model": lambda folder, _: load_model(str(folder), dtype="float32", device="cpu", **NAMED),
    "auto_backend": lambda folder, _: auto_backend(str(folder), **NAMED),
    "base": lambda folder, denoiser: load_model("dllm", base=folder, denoiser=denoiser, device="cpu"),
    "transformers": lambda folder, _: DiffusionModelForCausalLM.from_pretrained(folder, **NAMED),
    "llm": lambda folder, _: entry_of(str(folder), LoadOptions(**NAMED)),
    "gguf": lambda folder, _: convert(folder, folder.with_suffix(".gguf"), **NAMED),
    "export": lambda folder, denoiser: export(folder.with_name("made"), folder, denoiser),
}
FILES = {
    "config.json": tuple(LOADERS),
    "model.safetensors": tuple(LOADERS),
    "model.safetensors.index.json": ("load_model", "auto_backend", "transformers", "llm", "gguf"),
    "generation_config.json": ("load_model", "transformers", "llm", "gguf"),
    "tokenizer.json": ("load_model", "base", "llm", "gguf", "export"),
    "tokenizer_config.json": ("load_model", "base", "llm", "gguf", "export"),
    "special_tokens_map.json": ("load_model", "base", "llm", "gguf", "export"),
    "chat_template.jinja": ("load_model", "base", "llm", "gguf", "export"),
}


@pytest.fixture(autouse=True)
def watched() -> Iterator[None]:
    """A pipe that is opened would be waited for for ever."""
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("make", [os.mkfifo, lambda place: place.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_a_file_of_a_checkpoint(tiny_folder: Path, tmp_path: Path, file: str, make: Callable[[Path], None]) -> None:
    """By every loader that reads it, naming it."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "folder"))
    (folder / file).unlink(missing_ok=True)
    make(folder / file)
    for loader in FILES[file]:
        with pytest.raises(CheckpointError, match=rf"{file}: it is a (pipe|device)"):
            LOADERS[loader](folder, tiny_folder.parent / "denoiser.safetensors")


@pytest.mark.parametrize("read", [open_gguf, lambda place: load_model(str(place))])
def test_a_gguf_file(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """Before llama.cpp is asked for."""
    os.mkfifo(tmp_path / "model.gguf")
    with pytest.raises(DllmError, match="it is a pipe"):
        read(tmp_path / "model.gguf")


def test_a_corpus(tmp_path: Path) -> None:
    """Of a rule."""
    os.mkfifo(tmp_path / "corpus.json")
    with pytest.raises(ValueError, match="it is a pipe"):
        frequencies(str(tmp_path / "corpus.json"))


def test_a_template_beside_the_first(tiny_folder: Path, tmp_path: Path) -> None:
    """transformers opens all that are in that folder."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "folder"))
    (folder / "additional_chat_templates").mkdir()
    os.mkfifo(folder / "additional_chat_templates" / "more.jinja")
    with pytest.raises(CheckpointError, match=r"more.jinja: it is a pipe"):
        load_tokenizer(folder)
