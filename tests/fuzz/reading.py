"""Damaged checkpoints through everything that reads them: `python -m tests.fuzz.reading`."""

import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoTokenizer
from transformers import Qwen2Tokenizer
from transformers.utils import logging

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.families.files import load_tokenizer
from dllm_plugins.families.files import tokenizer_class
from dllm_plugins.llama_cpp.convert import convert
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.models import auto_backend
from dllm_transformers import DiffusionModelForCausalLM
from llm_dllm.checkpoints import entry_of

from ..conftest import make_tokenizer
from ..gguf.checkpoints import KINDS
from ..gguf.checkpoints import MASK
from ..gguf.checkpoints import make
from ..golden.cases import CLONED
from . import damage
from .watch import Attempt
from .watch import run

_TOGETHER = TemporaryDirectory(prefix="dllm-fuzz-sound-")
#: And families whose tiny checkpoints no test makes.
NAMES = [*KINDS, "bert_chat", "diffusion_gemma"]


@cache
def sound(name: str) -> Path:
    """A whole checkpoint, to be copied and damaged."""
    folder = Path(_TOGETHER.name) / name
    if name in KINDS:
        make(folder, name)
    else:
        shutil.copytree(CLONED[name] / "checkpoint", folder)
    make_tokenizer().save_pretrained(folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 3], "temperature": 0.7, "t_min": 0.1}')
    return folder


@cache
def sound_gguf(name: str) -> Path:
    """The same without a tokenizer, which is larger than its vocabulary, as a GGUF file."""
    kind = KINDS[name]
    folder = make(Path(_TOGETHER.name) / f"{name}-plain", name)
    return convert(folder, folder.with_suffix(".gguf"), "F32", **_options(kind.family))


def _options(family: str | None) -> dict[str, Any]:
    return {"mask_id": MASK} | ({} if family is None else {"family": family})


def _chosen(random: Random, folder: Path) -> tuple[Path, dict[str, Any]]:
    """A fresh copy of a random checkpoint, and the options it loads with."""
    name = random.choice(NAMES)
    # The masks of recorded families are in tokenizers that are not theirs here; Gemma has none.
    options: dict[str, Any] = {"mask_id": 5} if name == "bert_chat" else {}
    if name in KINDS:
        options = _options(KINDS[name].family)
    if name in KINDS and KINDS[name].model_type == "llada2_moe":
        options["preset"] = "llada2.0"
    return Path(shutil.copytree(sound(name), folder / name)), options


def _answer(place: Path, options: dict[str, Any]) -> None:
    model = load_model(str(place), dtype="float32", device="cpu", **options)
    request = Request([5, 6, 7], SamplingConfig(max_new_tokens=4), stop_ids=frozenset())
    model.engine().generate([request])


def _reader(random: Random, place: Path, options: dict[str, Any]) -> Callable[[], object]:
    """One of the ways in which a folder is read."""
    return random.choice(
        (
            lambda: _answer(place, options),
            lambda: DiffusionModelForCausalLM.from_pretrained(place, **options),
            lambda: auto_backend(str(place), **options),
            lambda: entry_of(str(place), LoadOptions(**options)),
        )
    )


def config(random: Random, folder: Path) -> tuple[str, Callable[[], object]]:
    """One key of config.json."""
    place, options = _chosen(random, folder)
    what = damage.change_key(random, place / "config.json")
    return f"{place.name}: {what}", _reader(random, place, options)


def settings(random: Random, folder: Path) -> tuple[str, Callable[[], object]]:
    """Either config, or generation_config.json, as bytes; or one key of the latter."""
    place, options = _chosen(random, folder)
    file = place / random.choice(("config.json", "generation_config.json", "generation_config.json"))
    change = damage.change_key if file.name.startswith("gen") and random.random() < 0.6 else damage.damage_bytes
    return f"{place.name}: {change(random, file)}", _reader(random, place, options)


def weights(random: Random, folder: Path) -> tuple[str, Callable[[], object]]:
    """A safetensors file, or the index of several."""
    place, options = _chosen(random, folder)
    file = place / "model.safetensors"
    if random.random() < 0.3:
        index = place / "model.safetensors.index.json"
        index.write_text('{"metadata": {"total_size": 1}, "weight_map": {"a": "model.safetensors"}}')
        what = random.choice((damage.change_key, damage.damage_bytes))(random, index)
    else:
        what = random.choice((damage.damage_header, damage.damage_bytes))(random, file)
    return f"{place.name}: {what}", _reader(random, place, options)


def tokenizer(random: Random, folder: Path) -> tuple[str, Callable[[], object]]:
    """Any file of a tokenizer, whichever way it comes."""
    make_tokenizer().save_pretrained(folder)
    (folder / "special_tokens_map.json").write_text('{"bos_token": "<s>", "eos_token": {"content": "</s>"}}')
    (folder / "config.json").write_text('{"model_type": "llama"}')
    if random.random() < 0.3:
        # As Dream's comes; an older one has its added tokens in a file of their own.
        merges: Any = [("a", "b")]
        Qwen2Tokenizer(vocab={"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}, merges=merges).save_pretrained(folder)
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.json").write_text('{"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}')
        (folder / "merges.txt").write_text("#version: 0.2\na b\n")
        (folder / "added_tokens.json").write_text('{"<|more|>": 4}')
    file = random.choice([path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".txt", ".jinja")])
    change = damage.change_key if file.suffix == ".json" and random.random() < 0.7 else damage.damage_bytes
    what = change(random, file)
    kind: Any = AutoTokenizer if random.random() < 0.5 else tokenizer_class(folder)
    return f"{kind.__name__}: {what}", lambda: load_tokenizer(folder, kind)


def header(random: Random, folder: Path) -> tuple[str, Callable[[], object]]:
    """The first bytes of a GGUF file, of which only the header is read here."""
    name = random.choice([name for name in KINDS if KINDS[name].model_type != "wedlm"])
    file = Path(shutil.copy(sound_gguf(name), folder / "model.gguf"))
    what = damage.damage_bytes(random, file)
    options = _options(KINDS[name].family)
    return f"{name}: {what}", lambda: entry_of(str(file), LoadOptions(**options))


ATTEMPTS: dict[str, Attempt] = {
    "config": config,
    "settings": settings,
    "weights": weights,
    "tokenizer": tokenizer,
    "config again": config,
    "header": header,
}


if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    sys.exit(min(run(ATTEMPTS), 1))
