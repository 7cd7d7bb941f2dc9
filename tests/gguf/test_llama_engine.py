"""Samplers through the engine: the same tokens from llama.cpp and torch, and every call counted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dllm_plugins.config import SamplingConfig
from dllm_plugins.engine import Engine
from dllm_plugins.errors import OptionError
from dllm_plugins.llama_cpp.batch import Span
from dllm_plugins.llama_cpp.context import Context
from dllm_plugins.models import Model
from dllm_plugins.request import Request

from . import tiny
from .letters import Letters
from .running import ours
from .running import theirs

pytest.importorskip("llama_cpp", reason="needs the extra gguf")

CANVAS: dict[str, Any] = {"cache": "none", "holds": True}
#: (architecture, sampler, options, spec).
CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("qwen3", "sdar", {}, {}),
    ("qwen3", "sdar", {"temperature": 0.8, "block_length": 4}, {}),
    ("qwen2", "bd3lm", {}, {}),
    ("llama", "bd3lm", {"temperature": 0.7, "preset_options": {"right_shift_logits": True}}, {}),
    ("llama", "bd3lm", {"guidance": 0.5}, {}),
    ("llama", "llada2.0", {"threshold": 0.3}, {}),
    ("qwen2", "fast_dllm_v2", {"preset_options": {"small_block_size": 4}}, {"shifted": True}),
    ("llama", "nemotron", {}, {}),
    ("llama", "nemotron_ar", {}, {}),
    ("qwen3", "blocks", {"rule": "threshold", "threshold": 0.4}, {}),
    ("qwen3", "freedave", {}, {}),
    ("qwen3", "ssd", {"temperature": 0.9}, {}),
    ("llada", "llada", {"block_length": 8, "steps": 24}, CANVAS | {"holds": False}),
    ("llama", "llada", {"block_length": 8, "steps": 24, "approximate_cache": "prefix"}, CANVAS),
    ("llama", "llada", {"block_length": 8, "steps": 24, "approximate_cache": "prefix", "refresh": 3}, CANVAS),
    ("llama", "llada", {"block_length": 8, "steps": 24, "guidance": 1.5}, CANVAS),
    ("dream", "dream", {"steps": 12, "temperature": 0.4}, CANVAS | {"holds": False, "shifted": True}),
    ("qwen2", "dream", {"steps": 12}, CANVAS | {"shifted": True}),
    ("llama", "freedave", {}, CANVAS),
]


def requests(**options: Any) -> list[Request]:
    """Unequal prompts."""
    config = SamplingConfig(**{"max_new_tokens": 24, "seed": 11, **options})
    return [Request(tiny.tokens(length, length), config) for length in (5, 19, 33)]


def engine(denoiser: Any) -> Engine:
    return Model("tiny", denoiser, Letters()).engine()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "sampler", "options", "fields"), CASES)
def test_tokens_of_torch(
    tmp_path: Path, kind: str, sampler: str, options: dict[str, Any], fields: dict[str, Any]
) -> None:
    """Of unequal rows together and of each alone; what the whole pass saw is told as the spec says it."""
    both = tiny.tiny(tmp_path, kind)
    fields = {"modes": ("diffusion",), "samplers": {"diffusion": sampler}, **fields}
    served = engine(ours(both, **fields))
    mine = served.generate(requests(**options))
    alone = [served.generate([request])[0] for request in requests(**options)]
    torchs = engine(theirs(both, **fields)).generate(requests(**options))
    assert [row.tokens for row in alone] == [row.tokens for row in mine] == [row.tokens for row in torchs]
    assert len(set(mine[2].tokens)) > 2
    for one, other in zip(mine, torchs, strict=True):
        assert one.usage.rows == other.usage.rows
        assert one.usage.cache == other.usage.cache
        assert one.usage.numerics == "approximate"
        assert sum(one.usage.passes.values()) >= sum(other.usage.passes.values())


def test_calls_are_passes(tmp_path: Path) -> None:
    """Three blocks of 8 behind 19 tokens: what freezes is a call apart, and block by block at first."""
    both = tiny.tiny(tmp_path, "qwen3")
    fields: dict[str, Any] = {"modes": ("diffusion",), "samplers": {"diffusion": "sdar"}}
    request = Request(tiny.tokens(19), SamplingConfig(max_new_tokens=21, threshold=1.0))
    usage = engine(ours(both, **fields)).generate([request])[0].usage
    # 16 tokens in two blocks freeze first; the block begun by the prompt has 5 open, the others 8 each.
    assert usage.passes == {"prefill": 3, "predict": 20, "freeze": 2}
    assert engine(theirs(both, **fields)).generate([request])[0].usage.passes == {"prefill": 1, "predict": 20}


@pytest.mark.parametrize("quant", ["F32", "BF16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("sampler", ["freedave", "ssd"])
@pytest.mark.parametrize("fields", [{}, CANVAS], ids=["blocks", "canvas"])
def test_self_verification_is_lossless(tmp_path: Path, quant: str, sampler: str, fields: dict[str, Any]) -> None:
    """The text of slow decoding, also where weights are quantised: drafted states are calls of the very same shape."""
    both = tiny.tiny(tmp_path, "llama", quant)
    fields = {"modes": ("ssd", "freedave"), **fields}
    served = engine(ours(both, "F16", **fields))
    for temperature in (0.0, 0.8):
        options = {"temperature": temperature, "max_new_tokens": 14}
        slow = served.generate(requests(mode="freedave", preset_options={"draft_steps": 1}, **options))
        fast = served.generate(requests(mode=sampler, **options))
        assert [row.tokens for row in fast] == [row.tokens for row in slow]
        assert len(set(slow[2].tokens)) > 2


NEMOTRON = {"diffusion": "nemotron", "nemotron_ar": "nemotron_ar", "linear": "nemotron_speculative"}


@pytest.mark.parametrize("quant", ["F32", "BF16", "F16", "Q8_0", "Q4_0"])
def test_verified_drafts_are_autoregression(tmp_path: Path, quant: str) -> None:
    """Tokens verified eight at a time, and one by one: in these types company or a second row makes them equal."""
    both = tiny.tiny(tmp_path, "llama", quant)
    served = engine(ours(both, "F16", modes=tuple(NEMOTRON), samplers=NEMOTRON))
    for temperature in (0.0, 0.8):
        slow = served.generate(requests(mode="nemotron_ar", temperature=temperature))
        fast = served.generate(requests(mode="linear", temperature=temperature))
        assert [row.tokens for row in fast] == [row.tokens for row in slow]
        assert len(set(slow[2].tokens)) > 2


def test_modes_whose_promise_is_not_kept_are_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, decode = tiny.tiny(tmp_path), Context.decode

    def rounded_by_length(self: Context, runs: Sequence[Span], **flags: bool) -> list[Any]:
        return [rows * (1 + 1e-7 * len(runs[0])) for rows in decode(self, runs, **flags)]

    monkeypatch.setattr(Context, "decode", rounded_by_length)
    denoiser = ours(both, modes=tuple(NEMOTRON), samplers=NEMOTRON)
    assert denoiser.spec.modes == ("diffusion", "nemotron_ar")
    with pytest.raises(OptionError, match="'linear' is not served by tiny: it promises the text of nemotron_ar"):
        engine(denoiser).admit(Request([1, 2], SamplingConfig(mode="linear")))
    assert "linear" in theirs(both, modes=tuple(NEMOTRON), samplers=NEMOTRON).spec.modes


@pytest.mark.parametrize(
    ("sampler", "options", "fields", "message"),
    [
        ("llada", {"approximate_cache": "dual"}, CANVAS, "'dual' does not fit tiny.*use 'prefix'"),
        ("fast_dllm_v2", {"preset_options": {"use_block_cache": True}}, {"shifted": True}, "use_block_cache=True"),
    ],
)
def test_keys_behind_a_block_are_refused_before_anything_runs(
    tmp_path: Path, sampler: str, options: dict[str, Any], fields: dict[str, Any], message: str
) -> None:
    both = tiny.tiny(tmp_path)
    denoiser = ours(both, modes=("diffusion",), samplers={"diffusion": sampler}, **fields)
    with pytest.raises(OptionError, match=message):
        engine(denoiser).admit(requests(**options)[0])
    assert denoiser.open_rows == 0


def test_interrupting_frees_the_row(tmp_path: Path) -> None:
    denoiser = ours(tiny.tiny(tmp_path), modes=("diffusion",), samplers={"diffusion": "sdar"})
    events = engine(denoiser).stream(requests()[1])
    next(events)
    assert denoiser.open_rows == 1
    events.close()
    assert denoiser.open_rows == 0
    denoiser.open_row()
    assert denoiser.context.streams == 1


def test_a_model_closes_its_backend(tmp_path: Path) -> None:
    both = tiny.tiny(tmp_path)
    model = Model("tiny", ours(both), Letters())
    model.close()
    model.close()
    assert model.denoiser.model.closed  # type: ignore[attr-defined]
    Model("tiny", theirs(both), Letters()).close()
