"""The tri-mode default on llama.cpp: what it computes, and that switching the adapter leaves clean rows alone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.caches.kept import KeptPrefixes
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.llama_tri_mode import LlamaTriModeDenoiser
from dllm_plugins.errors import GgufError
from dllm_plugins.errors import OptionError

from . import tri_mode

pytest.importorskip("llama_cpp", reason="needs the extra gguf")

SAMPLING: list[dict[str, Any]] = [{}, {"temperature": 0.9, "seed": 5}, {"temperature": 1.2, "seed": 6, "top_p": 0.7}]
TYPES: list[dict[str, Any]] = [
    {"dtype": "float32"},
    {"dtype": "bfloat16"},
    {"dtype": "float16"},
    {"weights": "Q8_0", "dtype": "auto"},
    {"weights": "q4_0", "dtype": "float32"},
]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("cache")
        patch.setenv("DLLM_CACHE", str(place))
        yield place / "gguf"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> tri_mode.Files:
    return tri_mode.write(tmp_path_factory.mktemp("tri-mode"), tiny_folder)


@pytest.fixture(scope="module", params=["tiny", "wide heads"])
def pair(request: pytest.FixtureRequest, files: tri_mode.Files, tiny_folder: Path) -> tuple[Model, Model]:
    """Two models of different shapes, each in float32 on llama.cpp and in torch."""
    tiny = tri_mode.Files(tiny_folder, tiny_folder.parent / "denoiser.safetensors")
    chosen = tiny if request.param == "tiny" else files
    return chosen.load("llama_cpp"), chosen.load("torch")


@pytest.fixture
def denoiser(files: tri_mode.Files) -> Iterator[LlamaTriModeDenoiser]:
    made = files.llama()
    yield made
    made.close()


def prefixed(denoiser: Denoiser, length: int) -> int:
    """A row with a frozen prefix."""
    row = denoiser.open_row()
    denoiser.forward([tri_mode.clean(row, [3 + 7 * place % 250 for place in range(length)], 0)])
    denoiser.freeze(row, length)
    return row


def canvas(denoiser: Denoiser, row: int, begin: int) -> list[Segment]:
    """Two clean tokens, three settled ones with gaps, and open rows between, at and behind them."""
    run = tri_mode.clean(row, [7, 8], begin)
    settled = Segment(row, [90, 91, 92], [begin + 4, begin + 5, begin + 8], behind=((0, 2),), wanted=(2, 0, 1))
    places = [begin + place for place in (2, 5, 6, 8, 9)]
    return [run, settled, tri_mode.opened(row, denoiser.spec.mask_id, places, ((0, 2), (1, 3)))]


def said(denoiser: Denoiser, hidden: Tensor, *, noisy: bool) -> list[Tensor]:
    """All that is made of hidden states."""
    if not noisy:
        return [denoiser.logits(hidden)]
    left = torch.tensor([[41, 40], [42, -1], [-1, -1], [77, 9], [-1, 5]])[: len(hidden)]
    drafts, ids = denoiser.draft_logits(hidden, left)
    return [hidden, denoiser.logits(hidden, left), drafts, torch.empty(0) if ids is None else ids]


def test_every_row_is_what_torch_computes(pair: tuple[Model, Model]) -> None:
    """Rows of unequal prefixes together: gaps, places taken twice, drafts without clean rows, a single open row."""
    found = []
    for model in pair:
        denoiser = model.denoiser
        rows = [prefixed(denoiser, length) for length in (20, 31, 20, 12)]
        mask = denoiser.spec.mask_id
        segments = [
            *canvas(denoiser, rows[0], 20),
            *canvas(denoiser, rows[1], 31),
            tri_mode.opened(rows[2], mask, [20, 21, 22, 23]),
            tri_mode.clean(rows[3], [99], 12),
            tri_mode.opened(rows[3], mask, [13], ((0, 1),)),
        ]
        hidden = denoiser.forward(segments)
        parts = zip(segments, hidden, strict=True)
        found.append([part for segment, rows in parts for part in said(denoiser, rows, noisy=segment.noisy)])
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-4)


def test_groups_behind_a_part_of_the_clean_rows(pair: tuple[Model, Model]) -> None:
    """As a backend that mixes clean and open rows is asked: the row's own keys stay as they are for that."""
    found = []
    for model in pair:
        denoiser, row = model.denoiser, prefixed(model.denoiser, 20)
        mask = denoiser.spec.mask_id
        clean = tri_mode.clean(row, [7, 8, 9], 20)
        groups = [tri_mode.opened(row, mask, [20 + seen, 21 + seen], ((0, seen),)) for seen in (1, 2, 3)]
        hidden = denoiser.forward([clean, *groups])
        denoiser.freeze(row, 2)
        again = denoiser.forward([tri_mode.clean(row, [44, 45], 22)])
        found.append([denoiser.logits(hidden[0]), *hidden[1:], denoiser.logits(again[0])])
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-4)


def test_switching_changes_no_clean_bit(denoiser: LlamaTriModeDenoiser) -> None:
    """Logits, keys and values of clean rows: adapter never used, and used in every pass between."""

    def decoded(*, switched: bool) -> tuple[Tensor, bytes]:
        row, rows = denoiser.open_row(), []
        for begin in range(0, 24, 3):
            segments = [tri_mode.clean(row, [30 + begin, 31 + begin, 32 + begin], begin)]
            if switched:
                places = list(range(begin + 3, begin + 7))
                segments.append(tri_mode.opened(row, denoiser.spec.mask_id, places, ((0, 3),)))
            rows.append(denoiser.forward(segments)[0])
            denoiser.freeze(row, 3)
        state = denoiser.context.save(denoiser.close_row(row).stream or 0)
        return torch.cat(rows), state.data.tobytes()

    plain, switched = decoded(switched=False), decoded(switched=True)
    assert torch.equal(plain[0], switched[0])
    assert plain[1] == switched[1]


def test_the_adapter_does_change_open_rows(denoiser: LlamaTriModeDenoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    row = prefixed(denoiser, 20)
    segments = [tri_mode.opened(row, denoiser.spec.mask_id, [20, 21, 22])]
    used = denoiser.forward(segments)[0]
    monkeypatch.setattr(denoiser.context, "use", lambda _adapters: None)
    assert (denoiser.forward(segments)[0] - used).abs().max() < 1e-6
    monkeypatch.undo()
    denoiser.forward([tri_mode.clean(row, [7, 8], 20)])
    monkeypatch.setattr(denoiser.context, "use", lambda _adapters: None)
    assert (denoiser.forward(segments)[0] - used).abs().max() > 0.01


@pytest.mark.parametrize("mode", ["ar", "speculative", "diffusion"])
@pytest.mark.parametrize("sampling", SAMPLING, ids=["greedy", "0.9", "top_p"])
def test_same_tokens_as_torch(pair: tuple[Model, Model], mode: str, sampling: dict[str, Any]) -> None:
    """Alone and as a batch of unequal rows."""
    config = SamplingConfig(mode=mode, max_new_tokens=40, **sampling)
    requests = [Request(prompt, config) for prompt in tri_mode.PROMPTS]
    llama, plain = pair
    together = llama.engine().generate(requests)
    alone = [llama.engine().generate([request])[0] for request in requests]
    for own, single, other in zip(together, alone, plain.engine().generate(requests), strict=True):
        assert own.tokens == single.tokens == other.tokens
        assert own.reason == other.reason
        assert own.usage.passes == single.usage.passes


def test_every_call_is_counted(pair: tuple[Model, Model]) -> None:
    """Verifying and drafting are a call each, and so are a canvas's clean and open rows."""
    llama = pair[0]
    request = Request([1, 40, 41, 42], SamplingConfig(mode="diffusion", max_new_tokens=24))
    own, other = (model.engine().generate([request])[0].usage for model in pair)
    assert own.rows == other.rows
    assert own.passes["prefill"] == other.passes["prefill"] == 1
    assert own.passes["freeze"] == other.passes["fused"]
    assert own.passes["predict"] in (other.total_passes, other.total_passes - 1)
    calls = []
    assert isinstance(llama.denoiser, LlamaTriModeDenoiser)
    context, decode = llama.denoiser.context, llama.denoiser.context.decode
    context.decode = lambda *given, **named: calls.append(named) or decode(*given, **named)  # type: ignore[method-assign]
    try:
        request = Request([1, 40, 41, 42], SamplingConfig(mode="speculative", max_new_tokens=24))
        usage = llama.engine().generate([request])[0].usage
    finally:
        del context.decode  # type: ignore[attr-defined]
    drafts = sum(bool(named.get("hidden")) for named in calls)
    assert usage.passes == {"prefill": 1, "verify": len(calls) - drafts - 1, "draft": drafts}
    assert drafts > 10


@pytest.mark.parametrize("options", TYPES, ids=lambda options: options.get("weights") or options["dtype"])
def test_clean_rows_are_invariant_and_so_drafts_lossless(files: tri_mode.Files, options: dict[str, Any]) -> None:
    """Bit-equal logits however many tokens a pass has and beside whom; speculative text is that of mode `ar`."""
    model = files.load("llama_cpp", **options)
    denoiser = model.denoiser
    assert denoiser.spec.numerics == "row-invariant"
    tokens = [5 + 11 * place % 250 for place in range(30)]
    alone = logits_of(denoiser, tokens, 1)
    for at_once, company in [(2, 0), (9, 0), (16, 0), (25, 0), (30, 0), (1, 3), (9, 3), (5, 2)]:
        assert torch.equal(logits_of(denoiser, tokens, at_once, company), alone), (at_once, company)
    for sampling in SAMPLING:
        requests = [
            [Request(prompt, SamplingConfig(mode=mode, max_new_tokens=50, **sampling)) for prompt in tri_mode.PROMPTS]
            for mode in ("ar", "speculative")
        ]
        expected, found = (model.engine().generate(part) for part in requests)
        assert [finish.tokens for finish in found] == [finish.tokens for finish in expected]


def logits_of(denoiser: Denoiser, tokens: list[int], at_once: int, company: int = 0) -> Tensor:
    """Logits of every token behind a prefix, `at_once` tokens a pass, with other rows that draft in each pass."""
    row, others = prefixed(denoiser, 244), [denoiser.open_row() for _ in range(company)]
    found = []
    for begin in range(0, len(tokens), at_once):
        part = tokens[begin : begin + at_once]
        segments = [tri_mode.clean(row, part, 244 + begin)]
        for index, other in enumerate(others):
            size = len(part) + (index == 2)
            segments.append(tri_mode.clean(other, [30 + index] * size, 0))
            segments.append(tri_mode.opened(other, denoiser.spec.mask_id, [size, size + 1], ((0, size),)))
        found.append(denoiser.forward(segments)[0])
        denoiser.freeze(row, len(part))
    for handle in [row, *others]:
        denoiser.close_row(handle)
    return torch.cat(found)


def test_where_rows_are_not_invariant_no_lossless_mode_is_served(
    files: tri_mode.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlamaTriModeDenoiser, "_invariant", lambda _self: False)
    model = files.load("llama_cpp")
    assert model.denoiser.spec.numerics == "approximate"
    assert model.denoiser.spec.modes == ("diffusion", "ar")
    with pytest.raises(OptionError, match=r"'speculative' is not served .* mode 'ar'"):
        model.engine().generate([Request([5], SamplingConfig(mode="speculative"))])


def test_the_measurement_sees_a_difference(files: tri_mode.Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without company, single rows differ from several, which is what it is for."""
    monkeypatch.setattr("dllm_plugins.denoisers.llama_tri_mode._MEASURED", (1, 2, 10))
    monkeypatch.setattr("dllm_plugins.denoisers.llama_tri_parts._accompanied", _unaccompanied)
    assert files.llama(dtype="bfloat16").spec.numerics == "approximate"


def _unaccompanied(part: Any, begin: int, tokens: list[int], rotary: Any, wanted: list[int]) -> Any:
    from dllm_plugins.denoisers.llama_tri_parts import Piece

    return Piece(part, begin, tokens, rotary, tuple(wanted))


@pytest.mark.parametrize("length", [1, 3, 8])
def test_taking_turns_is_lossless_on_any_backend(files: tri_mode.Files, length: int) -> None:
    """A pass verifies, the next one drafts: in torch the same text, in twice the passes less one."""
    model = files.load("torch")
    denoiser = model.denoiser
    for sampling in SAMPLING:
        config = SamplingConfig(mode="speculative", max_new_tokens=30, draft_length=length, **sampling)
        denoiser.spec = replace(denoiser.spec, mixes=True)
        expected = model.engine().generate([Request(prompt, config) for prompt in tri_mode.PROMPTS])
        denoiser.spec = replace(denoiser.spec, mixes=False)
        found = model.engine().generate([Request(prompt, config) for prompt in tri_mode.PROMPTS])
        for own, other in zip(found, expected, strict=True):
            assert own.tokens == other.tokens
            assert own.usage.passes["verify"] == other.usage.passes["verify"]
            assert own.usage.passes["draft"] in (own.usage.passes["verify"], own.usage.passes["verify"] - 1)


def test_embedded_clean_tokens_are_the_same_bits(files: tri_mode.Files) -> None:
    """Settled tokens come as rows that we look up in the file; llama.cpp looks others up itself."""
    for options in TYPES:
        denoiser = files.llama(**options)
        row = prefixed(denoiser, 20)
        plain = denoiser.forward([tri_mode.clean(row, [60, 61, 62], 20)])[0]
        again = denoiser.forward([tri_mode.clean(row, [60, 61], 20), Segment(row, [62], [25], behind=((0, 2),))])[0]
        assert torch.equal(again, plain[:2])
        denoiser.close()


def test_a_long_prompt_takes_several_calls(files: tri_mode.Files) -> None:
    """One more token than two calls hold, so that the last one is alone."""
    prompt = [3 + 11 * place % 300 for place in range(1025)]
    request = Request(prompt, SamplingConfig(mode="speculative", max_new_tokens=12))
    own, other = (files.load(backend).engine().generate([request])[0] for backend in ("llama_cpp", "torch"))
    assert own.tokens == other.tokens
    assert own.usage.passes["prefill"] == 3


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


def test_what_cannot_be_computed_is_refused(denoiser: LlamaTriModeDenoiser) -> None:
    row, mask = prefixed(denoiser, 20), denoiser.spec.mask_id
    run = tri_mode.clean(row, [7, 8], 20)
    for segments in (
        [run, Segment(row, [9], [22], behind=((0, 1),))],
        [run, tri_mode.opened(row, mask, [22]), Segment(row, [9], [22], behind=((0, 2),))],
        [run, tri_mode.opened(row, mask, [22], ((0, 3),))],
        [Segment(row, [7, 8], [20, 21], causal=False)],
        [Segment(row, [7, 8], [20, 21], groups=[0, 1])],
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
        patch.setattr("dllm_plugins.gguf.default_model.write_placed", lambda *_: 1 / 0)
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
