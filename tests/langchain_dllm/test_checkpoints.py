"""Checkpoints of other families by their folder: text, options, loading."""

import json
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dllm_plugins import DllmError
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.errors import RequestError
from dllm_plugins.load_options import LoadOptions
from langchain_dllm import DLLM
from langchain_dllm import ChatDLLM

from ..golden.cases import CLONED

OPTIONS: dict[str, Any] = {"block_length": 4, "steps": 3}
CHAT = [{"role": "user", "content": "how?"}]


@pytest.fixture
def checkpoint(tiny_folder: Path, tmp_path: Path) -> Callable[..., str]:
    """A tiny checkpoint of a family as users would have it; `without` leaves files or config keys out."""

    def make(case: str, *without: str) -> str:
        place = tmp_path / case
        shutil.copytree(CLONED[case] / "checkpoint", place)
        for name in {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} - {*without}:
            shutil.copy(tiny_folder / name, place)
        config = json.loads((place / "config.json").read_text())
        kept = {name: value for name, value in config.items() if name not in without}
        (place / "config.json").write_text(json.dumps(kept))
        return str(place)

    return make


def engine_text(model: Model, tokens: list[int], **options: Any) -> str:
    """What the engine itself answers in twelve tokens."""
    config = SamplingConfig(**{"max_new_tokens": 12, **OPTIONS, **options})
    return model.engine().generate([Request(tokens, config)])[0].text


@pytest.mark.parametrize("case", ["llada_dense", "sdar"])
def test_both_classes_decode_a_folder(checkpoint: Callable[..., str], case: str) -> None:
    """`invoke`, `stream`, `batch`; the engine's own text and figures."""
    place = checkpoint(case)
    own = load_model(place, dtype="float32", device="cpu")
    expected = engine_text(own, own.encode_chat(CHAT))
    loading: dict[str, Any] = {"model": place, "dtype": "float32", "device": "cpu", "max_tokens": 12, **OPTIONS}
    chat, text = ChatDLLM(**loading), DLLM(**loading)
    answer = chat.invoke("how?")
    assert expected
    assert answer.content == expected == text.invoke("how?")
    assert answer.response_metadata["model_name"] == place
    assert answer.response_metadata["statistics"]["mode"] == "diffusion"
    assert "".join(str(chunk.content) for chunk in chat.stream("how?")) == expected
    assert [message.content for message in chat.batch(["how?", "how?"])] == [expected] * 2
    raw = engine_text(own, own.tokenizer.encode("hello", add_special_tokens=False))
    assert text.invoke("hello", raw=True) == raw != ""


def test_options_of_the_samplers(checkpoint: Callable[..., str]) -> None:
    """As fields and in a call; what a sampler does not take raises."""
    place = checkpoint("sdar")
    own = load_model(place, dtype="float32", device="cpu")
    special = {"remasking": "sequential"}
    expected = engine_text(own, own.encode_chat(CHAT), preset_options=special)
    model = ChatDLLM(model=place, dtype="float32", device="cpu", max_tokens=12, block_length=4, steps=3)
    changed = model.model_copy(update={"preset_options": special})
    assert model.invoke("how?").content != expected
    assert model.invoke("how?", preset_options=special).content == changed.invoke("how?").content == expected
    assert model._identifying_params != changed._identifying_params
    for options, words in (
        ({"preset_options": {"remasking": "luck"}}, "remasking"),
        ({"preset_options": {"luck": 1}}, "luck"),
        ({"approximate_cache": "dual"}, "approximate_cache"),
        ({"refresh": 0}, "refresh"),
        ({"approximate_cache": "luck"}, "approximate_cache"),
    ):
        with pytest.raises(DllmError, match=words):
            model.invoke("how?", **options)


def test_approximate_caches(checkpoint: Callable[..., str]) -> None:
    """Reach the engine, and the statistics say so."""
    place = checkpoint("llada_dense")
    model = ChatDLLM(model=place, dtype="float32", device="cpu", max_tokens=12, approximate_cache="dual", refresh=3)
    answer = model.invoke("how?", **OPTIONS)
    assert answer.response_metadata["statistics"]["cache"] == "approximate"


def test_how_a_checkpoint_is_loaded(checkpoint: Callable[..., str]) -> None:
    """`family`, `preset` and `mask_id` are fields; each makes another shared model; the default takes none."""
    assert {option.name for option in fields(LoadOptions)} <= {*ChatDLLM.model_fields} & {*DLLM.model_fields}
    place = checkpoint("llada_dense", "mask_token_id")
    loading: dict[str, Any] = {"model": place, "dtype": "float32", "device": "cpu"}
    with pytest.raises(DllmError, match="mask_id"):
        ChatDLLM(**loading).invoke("how?")
    plain = ChatDLLM(**loading, mask_id=236)
    other = DLLM(**loading, mask_id=236, preset="fast_dllm")
    named = ChatDLLM(**loading, mask_id=236, family="llada")
    moved = ChatDLLM(**loading, mask_id=235)
    shared: list[Any] = [model._shared(place) for model in (plain, other, named, moved)]
    assert len({id(item) for item in shared}) == 4
    assert DLLM(**loading, mask_id=236)._shared(place) is shared[0]
    assert [item.model.denoiser.spec.mask_id for item in shared] == [236, 236, 236, 235]
    assert [item.model.denoiser.spec.samplers["diffusion"] for item in shared[:2]] == ["llada", "fast_dllm"]
    for option in ({"family": "llada"}, {"preset": "llada"}, {"mask_id": 3}):
        with pytest.raises(DllmError, match=f"{next(iter(option))}="):
            ChatDLLM(**option).invoke("how?")
        with pytest.raises(DllmError, match="when a model is made"):
            plain.invoke("how?", **option)


def test_a_base_checkpoint_takes_raw_text(checkpoint: Callable[..., str]) -> None:
    """Without a chat template there are no messages."""
    place = checkpoint("sdar", "chat_template.jinja")
    loading: dict[str, Any] = {"model": place, "dtype": "float32", "device": "cpu", "max_tokens": 4}
    with pytest.raises(RequestError, match="raw=True"):
        DLLM(**loading).invoke("how?")
    with pytest.raises(RequestError, match="chat template"):
        ChatDLLM(**loading).invoke("how?")
    assert DLLM(**loading, raw=True).invoke("hello")
