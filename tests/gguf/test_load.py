"""`load_model` of a GGUF file: the checkpoint's own spec and tokens, in every host."""

import hashlib
import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.errors import GgufError
from dllm_plugins.errors import OptionError
from dllm_plugins.gguf.header import read_header
from dllm_plugins.llama_cpp.convert import convert
from dllm_plugins.llama_cpp.load import cache_type
from langchain_dllm import DLLM
from langchain_dllm import ChatDLLM

from ..golden.cases import CLONED
from .spoken import give_tokenizer
from .twins import foreign

pytest.importorskip("llama_cpp", reason="needs the extra gguf")

#: What the backend changes; all else of a spec is the checkpoint's.
OWN = {"name", "numerics", "holds_prefix_only", "modes", "refused"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies go."""
    monkeypatch.setenv("DLLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf"


def load(path: Path, **options: Any) -> Model:
    """A file on llama.cpp."""
    return load_model(str(path), backend="llama_cpp", **options)


def folder(case: str) -> Path:
    """A checkpoint."""
    return CLONED[case] / "checkpoint"


def pair(case: str, place: Path, **options: Any) -> tuple[Model, Model]:
    """The checkpoint in torch, and its float32 file; the mask as the golden data has it."""
    options["mask_id"] = json.loads((CLONED[case] / "case.json").read_text())["mask_id"]
    path = convert(folder(case), place / f"{case}.gguf", "F32", mask_id=options["mask_id"])
    torch = load_model(str(folder(case)), dtype="float32", device="cpu", backend="torch", **options)
    return torch, load(path)


def answers(model: Model, **options: Any) -> list[Finish]:
    """Of unequal rows, decoded together."""
    config = SamplingConfig(max_new_tokens=24, **options)
    return model.engine().generate([Request([*range(40, 40 + length)], config) for length in (3, 17, 30)])


@pytest.mark.parametrize("case", ["sdar", "stable_diffcoder", "llada_dense"])
def test_the_spec_is_the_checkpoints(case: str, tmp_path: Path) -> None:
    """Modes, mask, blocks, stops, ids: whatever the engine asks."""
    torch, ours = pair(case, tmp_path)
    for field in fields(torch.denoiser.spec):
        if field.name not in OWN:
            assert getattr(ours.denoiser.spec, field.name) == getattr(torch.denoiser.spec, field.name), field.name
    assert ours.denoiser.spec.numerics == "approximate"
    assert ours.denoiser.spec.modes == tuple(mode for mode in torch.denoiser.spec.modes if mode not in ("wino", "s2d2"))
    assert ours.name.endswith(f"{case}.gguf")


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("sdar", {"block_length": 4, "steps": 2}),
        ("sdar", {"temperature": 0.9, "seed": 5}),
        ("sdar", {"mode": "blocks", "rule": "margin", "block_length": 8}),
        ("stable_diffcoder", {"steps": 12}),
        ("llada_dense", {"block_length": 8, "steps": 24}),
        ("llada_dense", {"block_length": 8, "steps": 24, "temperature": 0.8, "seed": 3}),
        ("llada_dense", {"mode": "fast_dllm", "block_length": 8, "threshold": 0.3, "approximate_cache": "prefix"}),
    ],
)
def test_the_tokens_are_the_checkpoints(case: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Rules, seeds, caches: the same engine, so the same tokens in float32; statistics say what is what."""
    torch, ours = pair(case, tmp_path)
    for mine, other in zip(answers(ours, **options), answers(torch, **options), strict=True):
        assert mine.tokens == other.tokens
        assert mine.reason == other.reason
        assert mine.usage.useful_tokens == other.usage.useful_tokens
        assert mine.usage.cache == other.usage.cache
        assert mine.usage.numerics == "approximate"
        assert mine.usage.total_passes >= other.usage.total_passes


def test_what_llama_cpp_cannot_see_is_refused(tmp_path: Path) -> None:
    """A mode that hides single tokens from one another."""
    _, ours = pair("llada_dense", tmp_path)
    with pytest.raises(OptionError, match=r"'wino' is not served by .*cannot hide single tokens.*take another mode"):
        answers(ours, mode="wino", block_length=8)
    assert answers(ours, block_length=8)


def test_copies_are_made_once_and_the_file_is_only_read(cache: Path, tmp_path: Path) -> None:
    """LLaDA's file keeps keys under another name; SDAR's as it is."""
    path = convert(folder("llada_dense"), tmp_path / "llada.gguf", "F32", mask_id=236)
    before = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns
    first = load(path)
    assert first.denoiser.spec.holds
    ((copy, made),) = [(found, found.stat().st_mtime_ns) for found in cache.iterdir()]
    load(path)
    assert [found.stat().st_mtime_ns for found in cache.iterdir()] == [made]
    assert (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) == before
    with pytest.raises(OptionError, match="dual"):
        answers(first, approximate_cache="dual", block_length=8)
    load(convert(folder("sdar"), tmp_path / "sdar.gguf", "F32"))
    assert list(cache.iterdir()) == [copy]


def test_a_file_of_llama_cpp_s_converter(tmp_path: Path) -> None:
    """Without our keys, the graph and the tokenizer's ids say enough; what they do not say can be said."""
    ours = convert(folder("llada_dense"), tmp_path / "ours.gguf", "F32", mask_id=236)
    foreign(ours, tmp_path / "foreign.gguf")
    found = load(tmp_path / "foreign.gguf")
    assert found.denoiser.spec.mask_id == 236
    options: dict[str, Any] = {"block_length": 8, "steps": 24, "mode": "llada"}
    same = [finish.tokens for finish in answers(load(ours), **options)]
    assert [finish.tokens for finish in answers(found, **options)] == same
    assert load(tmp_path / "foreign.gguf", mask_id=200).denoiser.spec.mask_id == 200


def test_a_preset_is_kept_and_can_be_changed(tmp_path: Path) -> None:
    """As said when the file was converted, or when it is loaded."""
    path = convert(folder("llada_dense"), tmp_path / "fast.gguf", "F32", preset="fast_dllm", mask_id=236)
    assert load(path).denoiser.spec.samplers["diffusion"] == "fast_dllm"
    assert load(path, preset="llada").denoiser.spec.samplers["diffusion"] == "llada"
    with pytest.raises(OptionError, match="preset='luck'"):
        load(path, preset="luck")


def test_keys_and_values_have_the_type_asked_for(tmp_path: Path) -> None:
    """Float32 files default to float32, others to float16; nothing else can be had."""
    plain = convert(folder("sdar"), tmp_path / "f32.gguf", "F32")
    half = convert(folder("sdar"), tmp_path / "bf16.gguf", "BF16")
    for path, dtype, kind in (
        (plain, "auto", "F32"),
        (half, "auto", "F16"),
        (plain, "float16", "F16"),
        (half, "float32", "F32"),
    ):
        assert cache_type(str(path), dtype, read_header(path)) == kind
        model: Any = load(path, dtype=dtype)
        assert model.denoiser.context.cache == kind
    with pytest.raises(OptionError, match=r"dtype='bfloat16'.*'float16' or 'float32'"):
        load(plain, dtype="bfloat16")


def test_wedlm_is_refused(tmp_path: Path) -> None:
    """Its tokens stand in another order than their positions."""
    place = tmp_path / "wedlm"
    shutil.copytree(folder("sdar"), place)
    config = json.loads((place / "config.json").read_text())
    config |= {"architectures": ["WeDLMForCausalLM"], "model_type": "wedlm", "qk_norm": True}
    (place / "config.json").write_text(json.dumps(config))
    path = convert(place, tmp_path / "wedlm.gguf", "F32", mask_id=206)
    with pytest.raises(GgufError, match="'wedlm' puts tokens in another order"):
        load(path)


async def test_langchain(tmp_path: Path, tiny_folder: Path) -> None:
    """Invoked, streamed, in batches and as a text model, a file is a model like any other."""
    place = tmp_path / "sdar"
    shutil.copytree(folder("sdar"), place)
    give_tokenizer(place, tiny_folder)
    path = str(convert(place, tmp_path / "sdar.gguf", "F32"))
    model = load(Path(path))
    options: dict[str, Any] = {"backend": "llama_cpp", "max_tokens": 12, "block_length": 4, "steps": 2}
    config = SamplingConfig(max_new_tokens=12, block_length=4, steps=2)
    asked: list[Any] = ["how?", "why?why?why?"]
    requests = [Request(model.encode_chat([{"role": "user", "content": text}]), config) for text in asked]
    texts = [finish.text for finish in model.engine().generate(requests)]
    chat = ChatDLLM(model=path, **options)
    assert [answer.content for answer in chat.batch(asked)] == texts
    assert "".join(str(chunk.content) for chunk in chat.stream(asked[0])) == texts[0]
    assert (await chat.ainvoke(asked[1])).content == texts[1]
    assert chat.invoke(asked[0]).response_metadata["statistics"]["numerics"] == "approximate"
    assert DLLM(model=path, **options).generate(asked).generations[1][0].text == texts[1]
    with pytest.raises(OptionError, match="weights='int8'"):
        ChatDLLM(model=path, weights="int8", **options).invoke(asked[0])
