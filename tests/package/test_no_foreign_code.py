"""No code of a checkpoint runs, and nobody is asked whether it may: in the sources, and in what they do."""

import ast
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from dllm_plugins import load_model
from dllm_plugins.errors import CheckpointError
from dllm_plugins.families.files import load_tokenizer
from dllm_plugins.llama_cpp.convert import convert
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.models import auto_backend
from dllm_transformers import DiffusionModelForCausalLM
from dllm_transformers import export
from llm_dllm.checkpoints import entry_of

ROOT = Path(__file__).parents[2]
PLACES = ("dllm_plugins", "adapters", "kernels", "benchmarks", "docs")
READERS = ("from_pretrained", "from_config", "pipeline")
#: Of our own, and what hands its caller's arguments on.
OWN = ("super()", "LlamaShape", "Rope", "cls")


@cache
def _calls() -> tuple[tuple[str, ast.Call], ...]:
    """Every call in the sources that may read a foreign file, with where it is."""
    found = []
    for name in PLACES:
        for path in sorted((ROOT / name).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and _name(node) in (*READERS, "load", "loads"):
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}", node))
    return tuple(found)


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _reads(call: ast.Call) -> bool:
    """Whether a library reads a folder there, and would act on its `auto_map`."""
    whose, _, name = ast.unparse(call.func).rpartition(".")
    if whose == "peft.PeftConfig":
        # It reads one JSON file into a class of its own.
        return False
    # A pipeline of transformers is given a model by place; `pipeline` is also what others call theirs.
    given = {item.arg for item in call.keywords} if name == "pipeline" else {"model"}
    return name in READERS and whose not in OWN and "model" in given


def _trusts_nothing(call: ast.Call) -> bool:
    found = [item.value for item in call.keywords if item.arg == "trust_remote_code"]
    return len(found) == 1 and isinstance(found[0], ast.Constant) and found[0].value is False


def test_the_words_never_appear_without_it() -> None:
    """Every call that could ask says that it may not; there are some, or nothing was looked at."""
    found = [(where, _trusts_nothing(call)) for where, call in _calls() if _reads(call)]
    assert len(found) > 5
    assert [where for where, fine in found if not fine] == []


def test_no_pickle_is_read() -> None:
    """The few files that torch reads back are its own, and read as weights only."""
    for where, call in _calls():
        name = ast.unparse(call.func)
        assert name not in ("pickle.load", "pickle.loads", "torch.hub.load", "joblib.load"), where
        assert name != "torch.load" or "weights_only=True" in where, where
        assert "allow_pickle" not in where, where


#: Put beside a checkpoint's files under every name that transformers would import.
CODE = """
import pathlib
pathlib.Path({marker!r}).touch()

class Own:
    pass

def generate(*args, **kwargs):
    pathlib.Path({marker!r}).touch()
"""


@pytest.fixture
def with_code(tiny_folder: Path, tmp_path: Path) -> Path:
    """A sound checkpoint whose every file of settings names code of its own, which would leave a mark."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "with_code"))
    (folder / "custom_generate").mkdir()
    for name in ("own.py", "generate.py", "tokenization_own.py", "custom_generate/generate.py", "__init__.py"):
        (folder / name).write_text(CODE.format(marker=str(tmp_path / "marker")))
    kinds = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoProcessor")
    named: dict[str, Any] = dict.fromkeys(kinds, "own.Own")
    _change(folder / "config.json", auto_map=named, custom_generate="custom_generate")
    _change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Own", "own.Own"]})
    (folder / "generation_config.json").write_text(json.dumps({"auto_map": named, "custom_generate": str(folder)}))
    for name in ("processor_config.json", "preprocessor_config.json"):
        (folder / name).write_text(json.dumps({"auto_map": {"AutoProcessor": "own.Own"}, "processor_class": "Own"}))
    return folder


def _change(place: Path, **values: Any) -> None:
    found = json.loads(place.read_text()) if place.exists() else {}
    place.write_text(json.dumps({**found, **values}))


def _placed(folder: Path, denoiser: Path) -> None:
    options: Any = {"base": str(folder), "denoiser": denoiser, "dtype": "float32", "device_map": "auto"}
    load_model("dllm", **options)


NAMED: dict[str, Any] = {"family": "diffullama", "mask_id": 258}
#: Everything that reads a folder a user names: (folder, denoiser's file, where to write).
LOADERS: dict[str, Callable[[Path, Path, Path], object]] = {
    "load_model": lambda folder, _, __: load_model(str(folder), dtype="float32", device="cpu", **NAMED),
    "auto_backend": lambda folder, _, __: auto_backend(str(folder), **NAMED),
    "base": lambda folder, denoiser, _: load_model("dllm", base=folder, denoiser=denoiser, device="cpu"),
    "device map": lambda folder, denoiser, _: _placed(folder, denoiser),
    "transformers": lambda folder, _, __: DiffusionModelForCausalLM.from_pretrained(folder, **NAMED),
    "export": lambda folder, denoiser, out: export(out, folder, denoiser),
    "llm": lambda folder, _, __: entry_of(str(folder), LoadOptions(**NAMED)),
    "gguf": lambda folder, _, out: convert(folder, out.with_suffix(".gguf"), **NAMED),
    "tokenizer": lambda folder, _, __: load_tokenizer(folder),
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What anybody wanted to know of whoever sits at the terminal."""
    found: list[object] = []

    def answer(*words: object) -> str:
        found.append(words)
        return "y"

    monkeypatch.setattr("builtins.input", answer)
    return found


@pytest.mark.parametrize("loader", LOADERS)
def test_a_folder_with_code_loads_by_its_data(
    with_code: Path, tiny_folder: Path, tmp_path: Path, loader: str, asked: list[object]
) -> None:
    """All its data are there, so it loads; nobody is asked and nothing has run."""
    assert (
        LOADERS[loader](with_code, tiny_folder.parent / "denoiser.safetensors", tmp_path / "out") is not NotImplemented
    )
    assert asked == []
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("loader", [name for name in LOADERS if name not in ("auto_backend", "transformers")])
def test_a_tokenizer_that_is_code_is_refused(
    with_code: Path, tiny_folder: Path, tmp_path: Path, loader: str, asked: list[object]
) -> None:
    """Its data are not there; the error names the folder and what to do."""
    (with_code / "tokenizer.json").unlink()
    _change(with_code / "tokenizer_config.json", tokenizer_class="OwnTokenizer")
    with pytest.raises(CheckpointError, match=r"with_code.*never run"):
        LOADERS[loader](with_code, tiny_folder.parent / "denoiser.safetensors", tmp_path / "out")
    assert asked == []
    assert not (tmp_path / "marker").exists()


def test_exported_checkpoints_run_none_either(tiny_folder: Path, tmp_path: Path, asked: list[object]) -> None:
    """`custom_generate/` lies in the folder for others; the Auto classes leave it alone, changed or not."""
    export(tmp_path / "out", tiny_folder, tiny_folder.parent / "denoiser.safetensors", "float32")
    (tmp_path / "out" / "custom_generate" / "generate.py").write_text(CODE.format(marker=str(tmp_path / "marker")))
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    model.generate(torch.tensor([[5, 9]]), max_new_tokens=2)
    assert asked == []
    assert not (tmp_path / "marker").exists()


def test_a_model_that_only_its_code_knows(tiny_folder: Path, tmp_path: Path, asked: list[object]) -> None:
    """Refused by name: what the code computes cannot be told without it."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "unknown"))
    _change(folder / "config.json", model_type="own", architectures=["Own"], auto_map={"AutoConfig": "own.Own"})
    for name, options in ((str(folder), {}), ("dllm", {"base": folder})):
        with pytest.raises(CheckpointError, match=r"own|Own"):
            load_model(name, **options)
    assert asked == []
