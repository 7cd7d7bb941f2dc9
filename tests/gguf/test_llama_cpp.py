"""llama.cpp as a denoiser gives torch's logits, and its own bits again whatever happened in between."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import GgufError
from dllm_plugins.errors import OptionError
from dllm_plugins.llama_cpp.batch import Span
from dllm_plugins.llama_cpp.context import Context

from . import tiny
from .running import equal
from .running import forward
from .running import noisy
from .running import ours
from .running import prefixed
from .running import same
from .running import theirs

pytest.importorskip("llama_cpp", reason="needs the extra gguf")

CANVAS: dict[str, Any] = {"cache": "none", "holds": True}


@pytest.fixture(params=["llama", "qwen2", "qwen3", "qwen3moe"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tiny.Tiny:
    return tiny.tiny(tmp_path, request.param)


@pytest.fixture
def one(tmp_path: Path) -> tiny.Tiny:
    return tiny.tiny(tmp_path, "qwen2")


def test_causal_prefix_and_block(both: tiny.Tiny) -> None:
    """Row by row: a long prefix in two calls, the last row of it, any rows of a block in any order."""
    found = []
    for denoiser in (ours(both), theirs(both)):
        row = denoiser.open_row()
        rows = forward(denoiser, [Segment(row, tiny.tokens(600), range(600), wanted=(599, 0, 512))])
        denoiser.freeze(row, 600)
        rows += forward(denoiser, [noisy(row, 600, wanted=(5, 0, 0, 3))])
        rows += forward(denoiser, [noisy(row, 600, wanted=())])
        assert rows[2].shape == (0, tiny.VOCABULARY)
        found.append(rows)
    same(*found)


def test_blocks_that_see_what_is_left_of_them(both: tiny.Tiny) -> None:
    groups = [0] * 5 + [1] * 8 + [2, 3, 7] + [8] * 3
    segment = Segment(1, tiny.tokens(19), range(19), groups=groups, wanted=range(19))
    more = noisy(1, 13, 12, groups=[0] * 4 + [1] * 8, causal=True)
    found = []
    for denoiser in (ours(both), theirs(both)):
        assert denoiser.open_row() == 1
        rows = forward(denoiser, [segment])
        denoiser.freeze(1, 13)
        found.append(rows + forward(denoiser, [more]))
    same(*found)


@pytest.mark.parametrize("kind", ["llada", "dream", "llama", "qwen3"])
def test_whole_canvases(tmp_path: Path, kind: str) -> None:
    """With and without a memory; two rows, and two canvases of one row, as guidance has them."""
    both, found = tiny.tiny(tmp_path, kind), []
    for denoiser in (ours(both, **CANVAS), theirs(both, **CANVAS)):
        rows = [denoiser.open_row(), denoiser.open_row()]
        canvas = noisy(rows[0], 0, 41, 1, wanted=(7, 7, 40, 0))
        found.append(forward(denoiser, [canvas, noisy(rows[0], 0, 41, 2), noisy(rows[1], 0, 33, 3)]))
        again = forward(denoiser, [canvas])
        assert torch.equal(again[0], found[-1][0])
    same(*found)


def test_segments_behind_others(both: tiny.Tiny) -> None:
    """All of one, parts of one, a chain of two; what the first leaves can be frozen whole or in part."""
    found = []
    for denoiser in (ours(both), theirs(both)):
        row = prefixed(denoiser, 21)
        clean = Segment(row, tiny.tokens(5, 2), range(21, 26), wanted=(4,))
        parts = [noisy(row, 21 + count, 3, count, behind=((0, count),)) for count in (1, 2, 5)]
        rows = forward(denoiser, [clean, *parts])
        denoiser.freeze(row, 2)
        chain = [
            Segment(row, tiny.tokens(4, 3), range(23, 27), wanted=(0, 3)),
            Segment(row, tiny.tokens(2, 4), range(27, 29), behind=((0, 4),), wanted=(1,)),
            noisy(row, 29, 4, behind=((0, 4), (1, 2))),
            noisy(row, 28, 4, behind=((0, 4), (1, 1))),
            noisy(row, 23, 3, 8),
        ]
        rows += forward(denoiser, chain)
        denoiser.freeze(row, 4)
        found.append(rows + forward(denoiser, [noisy(row, 27)]))
    same(*found)


def test_nothing_noisy_stays(one: tiny.Tiny) -> None:
    """Passes of all kinds in between change no bit; nor does going back to the beginning."""
    denoiser = ours(one)
    row = prefixed(denoiser, 30)
    expected = forward(denoiser, [noisy(row, 30)])
    for length in (3, 40, 9):
        forward(denoiser, [noisy(row, 30, length, length), noisy(row, 30, 2, length)])
    clean = Segment(row, tiny.tokens(9, 4), range(30, 39))
    forward(denoiser, [clean, noisy(row, 39, behind=((0, 9),)), noisy(row, 33, behind=((0, 3),))])
    denoiser.freeze(row, 0)
    assert equal(forward(denoiser, [noisy(row, 30)]), expected)
    fresh = ours(one)
    assert equal(forward(fresh, [noisy(prefixed(fresh, 30), 30)]), expected)


def test_freezing_a_part_is_as_forwarding_that_part(one: tiny.Tiny) -> None:
    denoiser, fresh = ours(one), ours(one)
    row, other = prefixed(denoiser, 30), prefixed(fresh, 30)
    clean = Segment(row, tiny.tokens(9, 4), range(30, 39))
    forward(denoiser, [clean, noisy(row, 39, behind=((0, 9),))])
    denoiser.freeze(row, 4)
    forward(fresh, [clean])
    fresh.freeze(other, 4)
    assert equal(forward(denoiser, [noisy(row, 34)]), forward(fresh, [noisy(other, 34)]))


@pytest.mark.parametrize("quant", ["F32", "BF16", "F16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize(("kind", "keys"), [("llama", "F32"), ("llama", "F16"), ("qwen3moe", "F16")])
def test_rows_in_company_have_the_bits_of_rows_alone(tmp_path: Path, quant: str, kind: str, keys: str) -> None:
    """Unequal prefixes, over and under 256 positions; equal and unequal blocks; single tokens and single rows."""
    both = tiny.tiny(tmp_path, kind, quant)
    lengths = [3, 300, 41, 513, 257, 18, 64]
    blocks = [(8, range(8)), (8, (7,)), (8, (0, 2)), (5, (1,)), (1, (0,)), (1, (0,)), (8, ())]

    def passes(rows: list[tuple[int, int]]) -> list[list[torch.Tensor]]:
        denoiser = ours(both, keys)
        handles = [denoiser.open_row() for _ in rows]
        found = forward(
            denoiser,
            [
                Segment(handle, tiny.tokens(length, place), range(length), wanted=(length - 1,))
                for handle, (place, length) in zip(handles, rows, strict=True)
            ],
        )
        for handle, (_, length) in zip(handles, rows, strict=True):
            denoiser.freeze(handle, length)
        segments = []
        for handle, (place, length) in zip(handles, rows, strict=True):
            size, wanted = blocks[place]
            segments.append(Segment(handle, tiny.tokens(4, place), range(length, length + 4)))
            segments.append(noisy(handle, length + 4, size, place, wanted=wanted, behind=((0, 4),)))
        found += forward(denoiser, segments)[1::2]
        denoiser.close()
        return [found[index :: len(rows)] for index in range(len(rows))]

    together = passes(list(enumerate(lengths)))
    for row in enumerate(lengths):
        assert equal(together[row[0]], passes([row])[0]), row


def test_calls_are_counted(one: tiny.Tiny) -> None:
    denoiser = ours(one)
    row = denoiser.open_row()
    context = Segment(row, tiny.tokens(16), range(16), groups=[0] * 8 + [1] * 8)
    forward(denoiser, [context, noisy(row, 16, behind=((0, 16),))])
    assert denoiser.rounds(row, "predict") == {"prefill": 2, "predict": 1}
    denoiser.freeze(row, 16)
    forward(denoiser, [Segment(row, [1, 2], range(16, 18)), noisy(row, 18, behind=((0, 2),))])
    assert denoiser.rounds(row, "predict") == {"freeze": 1, "predict": 1}
    other = prefixed(denoiser, 5)
    # Equal lengths share a call, unequal ones do not.
    forward(denoiser, [noisy(row, 16), noisy(row, 16, seed=7), noisy(row, 16, 4), noisy(other, 5)])
    assert denoiser.rounds(row, "verify") == {"verify": 2}
    assert denoiser.rounds(other, "verify") == {"verify": 1}


@pytest.mark.parametrize("quant", ["F32", "BF16", "F16", "Q8_0", "Q4_0"])
def test_single_tokens_are_rounded_as_several_where_a_mode_needs_it(tmp_path: Path, quant: str) -> None:
    modes = {"diffusion": "nemotron_speculative"}
    denoiser = ours(tiny.tiny(tmp_path, "llama", quant), "F16", modes=tuple(modes), samplers=modes)
    assert denoiser.spec.modes == ("diffusion",)
    rows = [prefixed(denoiser, 30), prefixed(denoiser, 30)]
    ids, places = tiny.tokens(9, 4), range(30, 39)
    expected = forward(denoiser, [Segment(rows[0], ids, places, wanted=range(9))])[0]
    for index, (token, place) in enumerate(zip(ids, places, strict=True)):
        found = forward(denoiser, [Segment(rows[1], [token], (place,), wanted=(0,))])
        assert torch.equal(found[0], expected[index : index + 1]), index
        denoiser.freeze(rows[1], 1)


def test_rows_share_no_call_where_that_changes_a_bit(one: tiny.Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it may be on another processor; it is measured once, and only if there is something to share."""
    denoiser, decode, calls = ours(one), Context.decode, list[int]()

    def other_products(self: Context, runs: Sequence[Span], **flags: bool) -> list[Any]:
        calls.append(len(runs))
        return [rows * (1 + 1e-7 * (len(runs) > 1)) for rows in decode(self, runs, **flags)]

    monkeypatch.setattr(Context, "decode", other_products)
    rows = [prefixed(denoiser, 12), prefixed(denoiser, 15)]
    alone = [forward(denoiser, [noisy(row, begin)])[0] for row, begin in zip(rows, (12, 15), strict=True)]
    assert calls == [1] * 4
    for _ in range(2):
        assert equal(forward(denoiser, [noisy(rows[0], 12), noisy(rows[1], 15)]), alone)
    assert calls[4:] == [2, 1, 1, 1, 1, 1]
    assert not denoiser.shares
    assert denoiser.context.streams == 2


def test_growing_in_the_middle_of_a_pass(one: tiny.Tiny) -> None:
    """Copies for branches, longer rows, more rows: every row goes on as if it were alone."""
    denoiser, fresh = ours(one), ours(one)
    row = prefixed(denoiser, 12)
    expected = forward(fresh, [noisy(prefixed(fresh, 12), 12)])
    branches = [noisy(row, 12, 3 + number % 4, number) for number in range(11)]
    first = forward(denoiser, branches)
    assert denoiser.context.size.streams >= 5
    long = prefixed(denoiser, 900, 4)
    rows = [prefixed(denoiser, 20, number) for number in range(9)]
    assert denoiser.context.size.positions >= 900
    assert equal(forward(denoiser, branches), first)
    assert equal(forward(denoiser, [noisy(row, 12)]), expected)
    for handle in (*rows, long):
        denoiser.close_row(handle)
    assert denoiser.open_rows == 1
    assert equal(forward(denoiser, [noisy(row, 12)]), expected)


def test_streams_of_branches_and_of_ended_rows_are_used_again(one: tiny.Tiny) -> None:
    denoiser = ours(one)
    row = prefixed(denoiser, 12)
    for _ in range(5):
        forward(denoiser, [noisy(row, 12, 4, number) for number in range(9)])
        denoiser.close_row(prefixed(denoiser, 5))
    assert denoiser.context.streams <= 2
    assert denoiser.context.size.streams <= 8


def test_a_failed_pass_leaves_the_rows(one: tiny.Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = ours(one)
    row = prefixed(denoiser, 12)
    expected = forward(denoiser, [noisy(row, 12)])

    def failing(*args: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(denoiser.context._library, "llama_decode", failing)
    with pytest.raises(KeyboardInterrupt):
        forward(denoiser, [noisy(row, 12, seed=number) for number in range(3)])
    monkeypatch.undo()
    assert equal(forward(denoiser, [noisy(row, 12)]), expected)
    assert denoiser.context.streams == 1


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (noisy(1, 12, apart=[0] * 6), "hides single tokens"),
        (noisy(1, 12, conditioning=torch.zeros(6, tiny.VOCABULARY)), "last pass's logits"),
        (noisy(1, 13), r"positions \[13, 14.* do not follow on the 12 cached ones"),
        (Segment(1, [1, 2], (13, 12)), r"positions \[13, 12\]"),
        (noisy(1, 12, groups=[1, 1, 0, 0, 2, 2]), "not in ascending order"),
        (Segment(1, [], ()), "without tokens"),
    ],
)
def test_what_llama_cpp_cannot_compute_is_refused(one: tiny.Tiny, segment: Segment, message: str) -> None:
    denoiser = ours(one)
    row = prefixed(denoiser, 12)
    assert row == 1
    expected = forward(denoiser, [noisy(row, 12)])
    with pytest.raises(GgufError, match=message):
        forward(denoiser, [segment])
    assert equal(forward(denoiser, [noisy(row, 12)]), expected)


def test_gaps_in_what_a_segment_sees_are_refused(one: tiny.Tiny) -> None:
    denoiser = ours(one)
    row = prefixed(denoiser, 12)
    first = Segment(row, [1, 2, 3], range(12, 15))
    second = Segment(row, [4, 5], range(15, 17), behind=((0, 3),))
    for behind in (((1, 2),), ((0, 2), (1, 1)), ((0, 3), (1, 3))):
        with pytest.raises(GgufError, match="cannot be decoded where"):
            forward(denoiser, [first, second, noisy(row, 17, behind=behind)])


def test_models_and_specs_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{tiny.VOCABULARY} token ids, but tiny 999"):
        ours(tiny.tiny(tmp_path), vocabulary=999)
    with pytest.raises(GgufError, match=r"dream.*keeps no keys, but tiny freezes blocks"):
        ours(tiny.tiny(tmp_path, "dream"))


def test_a_larger_vocabulary_in_the_file_is_cut(one: tiny.Tiny) -> None:
    small, whole = ours(one, vocabulary=300), ours(one)
    found = [forward(denoiser, [noisy(prefixed(denoiser, 9), 9)])[0] for denoiser in (small, whole)]
    assert torch.equal(found[0], found[1][:, :300])


def test_closing(one: tiny.Tiny) -> None:
    denoiser = ours(one)
    row = prefixed(denoiser, 9)
    denoiser.close()
    denoiser.close()
    assert denoiser.model.closed
    with pytest.raises(GgufError, match="closed"):
        forward(denoiser, [noisy(row, 9)])
    assert denoiser.close_row(row).length == 0
    with pytest.raises(GgufError, match="closed"):
        denoiser.open_row()


def test_without_a_memory_nothing_joins_a_prefix(tmp_path: Path) -> None:
    denoiser = ours(tiny.tiny(tmp_path, "llada"), **CANVAS)
    assert not denoiser.spec.holds
    row = denoiser.open_row()
    forward(denoiser, [noisy(row, 0)])
    denoiser.freeze(row, 0)
    with pytest.raises(GgufError, match="3 tokens cannot join the prefix: the model keeps no keys"):
        denoiser.freeze(row, 3)
    with pytest.raises(OptionError, match="where the model keeps keys"):
        denoiser.hold(row, [0, 1])
    for behind in (((0, 6),), ((0, 3),)):
        with pytest.raises(GgufError, match="keeps no keys"):
            forward(denoiser, [noisy(row, 0), noisy(row, behind[0][1], behind=behind)])
    assert denoiser.close_row(row).length == 0
