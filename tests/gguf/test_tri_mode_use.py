"""The tri-mode default on llama.cpp: long prompts, kept prefixes, what is refused, and its files."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import GgufError
from dllm_plugins.errors import OptionError
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.llama_cpp.tri_mode import LlamaTriModeDenoiser

from . import tri_mode

pytest.importorskip("llama_cpp", reason="needs the extra gguf")


def test_a_long_prompt_takes_several_calls(files: tri_mode.Files) -> None:
    """One more token than two calls hold, so that the last one is alone."""
    prompt = [3 + 11 * place % 300 for place in range(1025)]
    request = Request(prompt, SamplingConfig(mode="speculative", max_new_tokens=12))
    own, other = (files.load(backend).engine().generate([request])[0] for backend in ("llama_cpp", "torch"))
    assert own.tokens == other.tokens
    assert own.usage.passes["prefill"] == 3


def test_mode_auto(files: tri_mode.Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modes take turns on llama.cpp as well, where clean and open rows do not share a call."""
    monkeypatch.setenv("DLLM_ROUTES", str(tmp_path / "routes.json"))
    engine = files.load("llama_cpp").engine()
    asked = [Request([3, 14, 25], SamplingConfig(mode=mode, max_new_tokens=50)) for mode in ("ar", "auto")]
    told = engine.router.explain(asked[1], 1)
    plain, found = (engine.generate([request])[0] for request in asked)
    assert found.tokens == plain.tokens
    assert (found.usage.route or "").startswith(str(told))
    assert told.modes == ("ar", "speculative")
    assert {"draft", "predict", "verify"} <= set(found.usage.passes) or len(found.tokens) < 40


def test_a_long_prompt_in_slices(files: tri_mode.Files) -> None:
    """The tokens of the prompt as a whole."""
    prompt = [3 + 11 * place % 300 for place in range(90)]
    model = files.load("llama_cpp")
    for mode in ("speculative", "ar", "diffusion"):
        request = Request(prompt, SamplingConfig(mode=mode, max_new_tokens=12))
        [whole] = model.engine().generate([request])
        [found] = model.engine().generate([replace(request, slice=20)])
        assert found.tokens == whole.tokens
        assert found.usage.passes["slice"] == 4


def test_kept_prefixes_serve_the_next_turn(files: tri_mode.Files) -> None:
    model = files.load("llama_cpp")
    kept = KeptPrefixes(200)
    config = SamplingConfig(max_new_tokens=20)
    first = model.engine(kept).generate([Request([1, *range(30, 60)], config)])[0]
    second = [1, *range(30, 60), *first.tokens, 77, 78]
    found = model.engine(kept).generate([Request(second, config)])[0]
    assert found.usage.cached_tokens > 30
    assert found.tokens == model.engine().generate([Request(second, config)])[0].tokens


def test_a_closed_stream_frees_its_row(files: tri_mode.Files) -> None:
    denoiser = (model := files.load("llama_cpp")).denoiser
    assert isinstance(denoiser, LlamaTriModeDenoiser)
    events = model.engine().stream(Request([1, 40], SamplingConfig(max_new_tokens=30)))
    next(events)
    assert denoiser.open_rows == 1
    events.close()
    assert denoiser.open_rows == 0


@pytest.fixture
def denoiser(files: tri_mode.Files) -> Iterator[LlamaTriModeDenoiser]:
    made = files.llama()
    yield made
    made.close()


def test_what_cannot_be_computed_is_refused(denoiser: LlamaTriModeDenoiser) -> None:
    row, mask = tri_mode.prefixed(denoiser, 20), denoiser.spec.mask_id
    run = tri_mode.clean(row, [7, 8], 20)
    for segments in (
        [run, tri_mode.opened(row, mask, [22], ((0, 3),))],
        [run, run, tri_mode.opened(row, mask, [22], ((0, 1), (1, 2)))],
        [Segment(row, [7, 8], [20, 21], groups=[1, 0])],
        [Segment(row, [7, 8], [20, 21], apart=[-1, -1])],
    ):
        with pytest.raises(GgufError, match="backend='torch'"):
            denoiser.forward(segments)
    with pytest.raises(OptionError, match="exact cache only"):
        denoiser.hold(row, [0])
    with pytest.raises(GgufError, match="only 2 were forwarded"):
        denoiser.forward([run])
        denoiser.freeze(row, 3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"device": "cuda"}, "device='cuda'"),
        ({"device_map": "auto"}, "device_map='auto'"),
        ({"weights": "int8"}, "weights='int8' is none of llama.cpp's types"),
        ({"weights": "Q8_0", "dtype": "bfloat16"}, "dtype='bfloat16' has no effect"),
        ({"dtype": "int4"}, "dtype='int4' is unknown"),
    ],
)
def test_options_without_effect_are_refused(files: tri_mode.Files, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        files.load("llama_cpp", **options)


def test_files_are_made_once(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anew when what they are made of changes; a failure on the way leaves nothing."""
    monkeypatch.setenv("DLLM_CACHE", str(tmp_path / "cache"))
    own = tri_mode.write(tmp_path, tiny_folder)
    with monkeypatch.context() as patch:
        patch.setattr("dllm_plugins.default_model.llama_cpp.write_placed", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            own.llama()
    assert not list((tmp_path / "cache" / "gguf").iterdir())
    own.llama().close()
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "gguf").iterdir()}
    own.llama().close()
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "gguf").iterdir()} == made
    assert len(made) == 2
    tri_mode.write(tmp_path, tiny_folder, seed=4)
    own.llama().close()
    again = {path.name for path in (tmp_path / "cache" / "gguf").iterdir()}
    assert len(again) == 2
    assert not again & set(made)
