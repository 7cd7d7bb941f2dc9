"""The tri-mode default on llama.cpp: what it computes, and that switching the adapter leaves clean rows alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.llama_cpp.tri_mode import LlamaTriModeDenoiser

from . import tri_mode

pytest.importorskip("llama_cpp", reason="needs the extra gguf")


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


def canvas(denoiser: Denoiser, row: int, begin: int) -> list[Segment]:
    """Two clean tokens, three committed ones with gaps, and open rows between, at and behind them."""
    run = tri_mode.clean(row, [7, 8], begin)
    committed = Segment(row, [90, 91, 92], [begin + 4, begin + 5, begin + 8], behind=((0, 2),), wanted=(2, 0, 1))
    places = [begin + place for place in (2, 5, 6, 8, 9)]
    return [run, committed, tri_mode.opened(row, denoiser.spec.mask_id, places, ((0, 2), (1, 3)))]


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
        rows = [tri_mode.prefixed(denoiser, length) for length in (20, 31, 20, 12)]
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
        denoiser, row = model.denoiser, tri_mode.prefixed(model.denoiser, 20)
        mask = denoiser.spec.mask_id
        clean = tri_mode.clean(row, [7, 8, 9], 20)
        groups = [tri_mode.opened(row, mask, [20 + seen, 21 + seen], ((0, seen),)) for seen in (1, 2, 3)]
        hidden = denoiser.forward([clean, *groups])
        denoiser.freeze(row, 2)
        again = denoiser.forward([tri_mode.clean(row, [44, 45], 22)])
        found.append([denoiser.logits(hidden[0]), *hidden[1:], denoiser.logits(again[0])])
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-4)


def test_clean_rows_behind_a_part_and_beside_open_ones(pair: tuple[Model, Model]) -> None:
    """What stands beside a run of text, on a copy of its beginning, leaves that and its keys as they are."""
    found = []
    for model in pair:
        denoiser, row = model.denoiser, tri_mode.prefixed(model.denoiser, 20)
        run = tri_mode.clean(row, [7, 8], 20)
        beside = tri_mode.opened(row, denoiser.spec.mask_id, [22], ((0, 2),))
        part = Segment(row, [9], [22], behind=((0, 1),), wanted=(0,))
        whole = Segment(row, [9, 10], [22, 23], behind=((0, 2),), wanted=(1, 0))
        hidden = denoiser.forward([run, beside, part, whole])
        denoiser.freeze(row, 2)
        again = denoiser.forward([tri_mode.clean(row, [44, 45], 22)])
        found.append([*(denoiser.logits(rows) for rows in (hidden[0], *hidden[2:], again[0])), hidden[1]])
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
    row = tri_mode.prefixed(denoiser, 20)
    segments = [tri_mode.opened(row, denoiser.spec.mask_id, [20, 21, 22])]
    used = denoiser.forward(segments)[0]
    monkeypatch.setattr(denoiser.context, "use", lambda _adapters: None)
    assert (denoiser.forward(segments)[0] - used).abs().max() < 1e-6
    monkeypatch.undo()
    denoiser.forward([tri_mode.clean(row, [7, 8], 20)])
    monkeypatch.setattr(denoiser.context, "use", lambda _adapters: None)
    assert (denoiser.forward(segments)[0] - used).abs().max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ar", "speculative", "diffusion", "alternating"])
@pytest.mark.parametrize("sampling", tri_mode.SAMPLING, ids=["greedy", "0.9", "top_p"])
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


def test_every_call_is_counted(pair: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    """Verifying and drafting are a call each, and so are a canvas's clean and open rows."""
    llama = pair[0]
    request = Request([1, 40, 41, 42], SamplingConfig(mode="diffusion", max_new_tokens=24))
    own, other = (model.engine().generate([request])[0].usage for model in pair)
    assert own.rows == other.rows
    assert own.passes["prefill"] == other.passes["prefill"] == 1
    assert own.passes["freeze"] == other.passes["fused"]
    assert own.passes["predict"] in (other.total_passes, other.total_passes - 1)
    assert isinstance(llama.denoiser, LlamaTriModeDenoiser)
    decode = llama.denoiser.context.decode
    calls: list[dict[str, Any]] = []

    def counted(*given: Any, **named: Any) -> Any:
        calls.append(named)
        return decode(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(llama.denoiser.context, "decode", counted)
        request = Request([1, 40, 41, 42], SamplingConfig(mode="speculative", max_new_tokens=24))
        usage = llama.engine().generate([request])[0].usage
    drafts = sum(bool(named.get("hidden")) for named in calls)
    assert usage.passes == {"prefill": 1, "verify": len(calls) - drafts - 1, "draft": drafts}
    assert drafts > 10
