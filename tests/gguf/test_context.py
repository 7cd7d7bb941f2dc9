"""Streams and calls: what they compute, and what is refused before llama.cpp sees it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dllm_plugins.errors import GgufError
from dllm_plugins.errors import OptionError
from dllm_plugins.llama_cpp.batch import Span
from dllm_plugins.llama_cpp.context import Context
from dllm_plugins.llama_cpp.library import library
from dllm_plugins.llama_cpp.model import GgufModel
from dllm_plugins.llama_cpp.size import Size

from . import tiny

pytest.importorskip("llama_cpp", reason="needs the extra gguf")

PREFIX, BLOCK = 37, 9


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tiny.Tiny:
    return tiny.tiny(tmp_path_factory.mktemp("context"), "qwen3")


@pytest.fixture(scope="module")
def model(both: tiny.Tiny) -> Iterator[GgufModel]:
    made = GgufModel(both.path)
    yield made
    made.close()


@pytest.fixture
def context(model: GgufModel) -> Iterator[Context]:
    made = Context(model, "F32")
    yield made
    made.close()


def filled(context: Context, length: int, seed: int = 1) -> int:
    """A stream with a causal prefix."""
    stream = context.open()
    context.decode([Span(stream, 0, tiny.tokens(length, seed))], causal=True)
    return stream


def block(context: Context, stream: int, begin: int, **fields: Any) -> Any:
    """Rows of a noisy block, which does not stay."""
    run = Span(stream, begin, [tiny.MASK] * BLOCK, wanted=fields.pop("wanted", range(BLOCK)))
    rows = context.decode([run], causal=False, **fields)[0]
    context.cut(stream, begin)
    return rows


def test_a_block_behind_a_causal_prefix(both: tiny.Tiny, context: Context) -> None:
    ids = tiny.tokens(PREFIX) + [tiny.MASK] * BLOCK
    seen = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
    seen[PREFIX:, PREFIX:] = True
    expected = tiny.logits(both.model, ids, seen)
    rows = block(context, filled(context, PREFIX), PREFIX)
    torch.testing.assert_close(torch.from_numpy(rows), expected[PREFIX:], atol=1e-4, rtol=0)


def test_final_hidden_states(both: tiny.Tiny, context: Context) -> None:
    """Through the head they are the logits; and asking for them changes nothing afterwards."""
    stream = filled(context, PREFIX)
    before = block(context, stream, PREFIX)
    hidden = block(context, stream, PREFIX, wanted=[1, 4], hidden=True)
    assert hidden.shape == (2, 96)
    found = both.model.lm_head(torch.from_numpy(hidden))
    torch.testing.assert_close(found, torch.from_numpy(before[[1, 4]]), atol=1e-4, rtol=0)
    assert np.array_equal(block(context, stream, PREFIX), before)


def test_rows_are_copies_and_only_the_wanted_ones(context: Context) -> None:
    stream = filled(context, PREFIX)
    rows = block(context, stream, PREFIX)
    some = block(context, stream, PREFIX, wanted=[0, 5, 8])
    kept = some.copy()
    assert np.array_equal(some, rows[[0, 5, 8]])
    block(context, stream, PREFIX)
    context.decode([Span(stream, PREFIX, tiny.tokens(4, 9), wanted=range(4))], causal=True)
    assert np.array_equal(some, kept)


def test_embeddings_stand_for_tokens(both: tiny.Tiny, context: Context) -> None:
    stream = filled(context, PREFIX)
    expected = block(context, stream, PREFIX)
    table = both.model.get_input_embeddings().weight.detach().numpy()
    run = Span(stream, PREFIX, embeddings=table[[tiny.MASK] * BLOCK], wanted=range(BLOCK))
    found = context.decode([run], causal=False)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_growing_keeps_every_stream(model: GgufModel) -> None:
    """More streams, longer ones, larger calls: the same bits before and after, and as from the beginning."""
    context = Context(model, "F32", Size(streams=1, positions=256, tokens=64))
    small = filled(context, 20)
    before = block(context, small, 20)
    others = [filled(context, 11 + number, number) for number in range(4)]
    assert context.size.streams >= 5
    expected = [block(context, stream, 11 + number) for number, stream in enumerate(others)]
    context.decode([Span(others[0], 11, tiny.tokens(600))], causal=False)
    assert context.size.positions >= 611
    assert context.size.tokens >= 600
    context.cut(others[0], 11)
    assert np.array_equal(block(context, small, 20), before)
    assert all(
        np.array_equal(block(context, stream, 11 + number), rows)
        for number, (stream, rows) in enumerate(zip(others, expected, strict=True))
    )
    fresh = Context(model, "F32")
    assert np.array_equal(block(fresh, filled(fresh, 20), 20), before)


def test_copies_are_independent_and_of_any_length(context: Context) -> None:
    source = filled(context, PREFIX)
    expected = block(context, source, PREFIX)
    whole, half = context.copy(source, PREFIX), context.copy(source, 12)
    assert (context.length(whole), context.length(half)) == (PREFIX, 12)
    context.cut(source, 0)
    context.decode([Span(source, 0, tiny.tokens(50, 3))], causal=True)
    assert np.array_equal(block(context, whole, PREFIX), expected)
    assert np.array_equal(block(context, half, 12), block(context, filled(context, 12), 12))
    assert context.copy(source, 0, whole) == whole
    assert context.length(whole) == 0


def test_saved_streams_come_back_in_any_context(model: GgufModel, context: Context) -> None:
    stream = filled(context, PREFIX)
    expected, state = block(context, stream, PREFIX), context.save(stream)
    context.close_stream(stream)
    other = Context(model, "F32", Size(streams=3, positions=1024, tokens=32))
    for place in (context, other):
        assert np.array_equal(block(place, place.load(state, PREFIX), PREFIX), expected)
    short = other.load(state, 8)
    assert np.array_equal(block(other, short, 8), block(other, filled(other, 8), 8))
    with pytest.raises(GgufError, match="38"):
        other.load(state, 38)


def test_an_unknown_layout_of_states_is_refused(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = filled(context, PREFIX)
    context.open()
    from dllm_plugins.llama_cpp import state

    read = state.read
    monkeypatch.setattr(state, "read", lambda *args: read(*args)[4:])
    with pytest.raises(GgufError, match="not known"):
        context.save(stream)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([Span(0, PREFIX, [1, 2]), Span(1, PREFIX, [1])], r"\[2, 1\] positions cannot share a call"),
        ([Span(0, PREFIX, [1]), Span(0, PREFIX, [1])], r"\[0, 0\] name one twice"),
        ([], "without tokens"),
        ([Span(0, PREFIX, [])], "no token"),
        ([Span(0, PREFIX + 1, [1])], f"holds {PREFIX} positions"),
        ([Span(0, PREFIX - 1, [1])], f"holds {PREFIX} positions"),
        ([Span(7, 0, [1])], "stream 7 is not open"),
        ([Span(300, 0, [1])], "stream 300 is not open"),
        ([Span(-1, 0, [1])], "stream -1 is not open"),
        ([Span(0, PREFIX, [tiny.VOCABULARY])], f"token id {tiny.VOCABULARY} is outside 0 to {tiny.VOCABULARY - 1}"),
        ([Span(0, PREFIX, [-1])], "token id -1"),
        ([Span(0, PREFIX, [1, 2], wanted=[1, 0])], "ascending"),
        ([Span(0, PREFIX, [1, 2], wanted=[1, 1])], "ascending"),
        ([Span(0, PREFIX, [1, 2], wanted=[2])], "ascending"),
        ([Span(0, PREFIX, [1, 2], wanted=[-1])], "ascending"),
        ([Span(0, PREFIX, embeddings=np.zeros((2, 95), np.float32))], r"\(2, 95\)"),
        ([Span(0, PREFIX, embeddings=np.zeros((2, 96), np.float64))], "float64"),
        ([Span(0, PREFIX, [1], embeddings=np.zeros((2, 96), np.float32))], "beside 1 tokens"),
        ([Span(0, PREFIX, [1]), Span(1, PREFIX, embeddings=np.zeros((1, 96), np.float32))], "cannot share a call"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_llama_cpp_cannot_do_is_refused_before(context: Context, runs: list[Span], message: str) -> None:
    filled(context, PREFIX), filled(context, PREFIX)
    with pytest.raises(GgufError, match=message):
        context.decode(runs, causal=False)
    assert context.length(0) == context.length(1) == PREFIX


def test_operations_on_streams_are_checked(context: Context) -> None:
    stream = filled(context, PREFIX)
    for call in (context.length, context.save, context.close_stream):
        with pytest.raises(GgufError, match="stream 99 is not open; open streams: \\[0\\]"):
            call(99)
    with pytest.raises(GgufError, match="-1 positions"):
        context.cut(stream, -1)
    with pytest.raises(GgufError, match=f"has {PREFIX} positions, not {PREFIX + 1}"):
        context.copy(stream, PREFIX + 1)
    with pytest.raises(GgufError, match="stream 99"):
        context.copy(stream, 1, 99)


def test_streams_have_an_end(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_most", 3)
    assert [context.open() for _ in range(3)] == [0, 1, 2]
    assert context.size.streams == 3
    with pytest.raises(GgufError, match="all 3 streams"):
        context.open()
    context.close_stream(1)
    assert context.open() == 1


def test_a_failed_call_leaves_the_streams_as_they_were(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = filled(context, PREFIX)
    expected = block(context, stream, PREFIX)
    decode = library().llama_decode

    def failing(pointer: Any, batch: Any) -> int:
        decode(pointer, batch)
        return -3

    monkeypatch.setattr(library(), "llama_decode", failing)
    with pytest.raises(GgufError, match="code -3"):
        block(context, stream, PREFIX)
    monkeypatch.undo()
    assert context.length(stream) == PREFIX
    assert np.array_equal(block(context, stream, PREFIX), expected)


def test_what_is_no_number_is_not_decoded(tmp_path: Path) -> None:
    both = tiny.tiny(tmp_path)
    with torch.no_grad():
        both.model.model.layers[1].mlp.down_proj.weight[3, 5] = float("nan")
    context = Context(GgufModel(tiny.write(both.model, tmp_path / "damaged.gguf", "llama")), "F32")
    stream = context.open()
    with pytest.raises(GgufError, match=r"damaged.gguf computes what is no number"):
        context.decode([Span(stream, 0, [1, 2], wanted=[1])], causal=True)
    assert context.length(stream) == 0


def test_shrinking_is_for_contexts_nobody_uses(model: GgufModel) -> None:
    context = Context(model, "F32")
    stream = filled(context, 20)
    expected = block(context, stream, 20)
    others = [filled(context, 1100) for _ in range(5)]
    assert context.large
    grown = context.size
    context.shrink()
    assert context.size == grown
    assert np.array_equal(block(context, stream, 20), expected)
    for number in (stream, *others):
        context.close_stream(number)
    context.shrink()
    assert (context.size, context.large) == (Size(), False)
    assert np.array_equal(block(context, filled(context, 20), 20), expected)


def test_no_room_for_a_larger_context_leaves_the_smaller_one(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = filled(context, PREFIX)
    expected = block(context, stream, PREFIX)
    monkeypatch.setattr(library(), "llama_init_from_model", lambda *args: None)
    with pytest.raises(GgufError, match="no room for 2 rows of 512 positions"):
        context.open()
    monkeypatch.undo()
    assert np.array_equal(block(context, stream, PREFIX), expected)
    assert context.open() == 1


def test_types_of_the_cache(model: GgufModel) -> None:
    rows = [block(context, filled(context, PREFIX), PREFIX) for context in (Context(model, "F32"), Context(model))]
    assert 0 < abs(rows[0] - rows[1]).max() < 0.1
    with pytest.raises(OptionError, match="'Q8_0' is not one of F32, F16"):
        Context(model, "Q8_0")


@pytest.mark.parametrize("architecture", ["dream", "llada"])
def test_without_a_memory_canvases_are_whole(tmp_path: Path, architecture: str) -> None:
    both = tiny.tiny(tmp_path, architecture)
    context = Context(GgufModel(both.path), "F32")
    ids = tiny.tokens(700, 2)
    ids[::3] = [tiny.MASK] * len(ids[::3])
    expected = tiny.logits(both.model, ids, torch.ones(700, 700, dtype=torch.bool))
    rows = context.decode([Span(0, 0, ids, wanted=[3, 4, 699])], causal=False)[0]
    torch.testing.assert_close(torch.from_numpy(rows), expected[[3, 4, 699]], atol=1e-4, rtol=0)
    for runs, causal, message in (
        ([Span(0, 0, [1]), Span(1, 0, [1])], False, "2 canvases"),
        ([Span(0, 5, [1])], False, "behind 5 cached"),
        ([Span(0, 0, [1])], True, "causal"),
    ):
        with pytest.raises(GgufError, match=f"{architecture}.*{message}"):
            context.decode(runs, causal=causal)
    with pytest.raises(GgufError, match="keeps no keys"):
        context.open()
