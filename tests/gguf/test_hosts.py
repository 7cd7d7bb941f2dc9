"""Where a folder is needed, a GGUF file is refused with what takes it: no llama.cpp is needed."""

from pathlib import Path

import pytest

from dllm_plugins import load_model
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.llama_cpp.convert import convert
from dllm_transformers import DiffusionModelForCausalLM

from ..golden.cases import CLONED

SDAR = CLONED["sdar"] / "checkpoint"
FOLDER_NEEDED = "GGUF file, and here a folder or a hub id is needed: load_model, llm and LangChain"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A tiny SDAR."""
    return convert(SDAR, tmp_path / "sdar.gguf", "F32")


def test_transformers_needs_the_checkpoint(file: Path) -> None:
    """Its classes compute with torch."""
    with pytest.raises(CheckpointError, match=FOLDER_NEEDED):
        DiffusionModelForCausalLM.from_pretrained(file)
    with pytest.raises(OptionError, match="gguf_file="):
        DiffusionModelForCausalLM.from_pretrained(SDAR, gguf_file=file.name)


def test_bases_and_conversions_are_folders(file: Path, tmp_path: Path) -> None:
    """As said in the error; a folder of files tells which of them to name."""
    with pytest.raises(CheckpointError, match=FOLDER_NEEDED):
        load_model("dllm", base=str(file))
    with pytest.raises(CheckpointError, match=FOLDER_NEEDED):
        convert(file, tmp_path / "again.gguf")
    with pytest.raises(CheckpointError, match=rf"name the file itself, such as {file}"):
        load_model(str(tmp_path))


def test_a_folder_is_not_computed_by_llama_cpp() -> None:
    """Converting takes minutes and room, so it is not done unasked."""
    with pytest.raises(OptionError, match="llm dllm gguf"):
        load_model(str(SDAR), backend="llama_cpp")
