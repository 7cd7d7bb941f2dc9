"""Prefixes that outlive their rows, and keys that are held although they are stale."""

from pathlib import Path

import pytest

from dllm_plugins.config import SamplingConfig
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import GgufError
from dllm_plugins.errors import OptionError
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.models import Model
from dllm_plugins.request import Request

from . import tiny
from .letters import Letters
from .running import equal
from .running import forward
from .running import noisy
from .running import ours
from .running import prefixed
from .running import same
from .running import theirs

pytest.importorskip("llama_cpp", reason="needs the extra gguf")


@pytest.fixture
def both(tmp_path: Path) -> tiny.Tiny:
    return tiny.tiny(tmp_path, "llama")


def test_rows_begin_with_any_part_of_a_kept_prefix(both: tiny.Tiny) -> None:
    denoiser = ours(both)
    kept = denoiser.close_row(prefixed(denoiser, 30))
    assert kept.length == 30
    for length in (30, 11, 30, 0):
        expected = forward(denoiser, [noisy(prefixed(denoiser, length) if length else denoiser.open_row(), length)])
        assert equal(forward(denoiser, [noisy(denoiser.open_row(kept, length), length)]), expected)


def test_what_was_not_frozen_is_not_kept(both: tiny.Tiny) -> None:
    denoiser = ours(both)
    row = prefixed(denoiser, 30)
    forward(denoiser, [noisy(row, 30)])
    kept = denoiser.close_row(row)
    expected = forward(denoiser, [noisy(prefixed(denoiser, 30), 30, seed=8)])
    assert equal(forward(denoiser, [noisy(denoiser.open_row(kept, 30), 30, seed=8)]), expected)


def test_kept_prefixes_make_room_rather_than_that_the_context_grows(both: tiny.Tiny) -> None:
    """They move out of llama.cpp, and come back the same."""
    denoiser = ours(both)
    kept = [denoiser.close_row(prefixed(denoiser, 20 + number, number)) for number in range(5)]
    assert denoiser.context.size.streams == 1
    assert [prefix.stream for prefix in kept] == [None] * 4 + [0]
    rows = [denoiser.open_row(prefix, prefix.length) for prefix in kept]
    found = forward(denoiser, [noisy(row, 20 + number) for number, row in enumerate(rows)])
    fresh = ours(both)
    alone = [prefixed(fresh, 20 + number, number) for number in range(5)]
    assert equal(found, forward(fresh, [noisy(row, 20 + number) for number, row in enumerate(alone)]))


def test_after_a_large_crowd_the_context_is_small_again(both: tiny.Tiny) -> None:
    """And the prefixes it left behind are what they were."""
    denoiser = ours(both)
    small = denoiser.context.size
    rows = [prefixed(denoiser, 1300 + number, number) for number in range(5)]
    expected = forward(denoiser, [noisy(row, 1300 + number) for number, row in enumerate(rows)])
    kept = [denoiser.close_row(row) for row in rows[:4]]
    assert denoiser.context.size != small
    kept.append(denoiser.close_row(rows[4]))
    assert denoiser.context.size == small
    assert denoiser.context.streams == 0
    rows = [denoiser.open_row(prefix, prefix.length) for prefix in kept]
    assert equal(forward(denoiser, [noisy(row, 1300 + number) for number, row in enumerate(rows)]), expected)


def test_dropping_a_prefix_frees_its_stream(both: tiny.Tiny) -> None:
    denoiser = ours(both)
    for _ in range(4):
        denoiser.close_row(prefixed(denoiser, 9))
    first = denoiser.close_row(prefixed(denoiser, 9))
    stream = first.stream
    del first
    row = denoiser.open_row()
    assert denoiser.context.streams == 1
    assert denoiser.context.length(stream or 0) == 0
    denoiser.close_row(row)


def test_a_prefix_of_another_model_is_refused(both: tiny.Tiny) -> None:
    denoiser, other = ours(both), ours(both)
    kept = other.close_row(prefixed(other, 9))
    with pytest.raises(GgufError, match="another model's"):
        denoiser.open_row(kept, 9)
    with pytest.raises(GgufError, match="9 positions long"):
        other.open_row(kept, 10)
    with pytest.raises(GgufError, match="closed"):
        other.close()
        other.open_row(kept, 9)


def test_the_next_turn_forwards_only_what_is_new(both: tiny.Tiny) -> None:
    """Mode ar through the engine, with kept prefixes, without, and in torch: the same tokens."""
    prompt, found = tiny.tokens(40), []
    for denoiser in (ours(both, modes=("ar",)), theirs(both, modes=("ar",))):
        for prefixes in (KeptPrefixes(1000), None):
            engine = Model("tiny", denoiser, Letters()).engine(prefixes)
            first = engine.generate([Request(prompt, SamplingConfig(max_new_tokens=12))])[0]
            more = [*prompt, *first.tokens, *tiny.tokens(5, 3)]
            second = engine.generate([Request(more, SamplingConfig(max_new_tokens=12))])[0]
            assert second.usage.cached_tokens == (51 if prefixes is not None else 0)
            found.append((first.tokens, second.tokens))
    assert found == [found[0]] * 4


def test_held_keys_are_those_of_the_pass_that_left_them(both: tiny.Tiny) -> None:
    """Prefix caching: a whole pass, then the rest of the canvas alone, against keys of the whole one."""
    found = []
    for denoiser in (ours(both, holds=True), theirs(both, holds=True)):
        row = denoiser.open_row()
        rows = forward(denoiser, [noisy(row, 0, 40)])
        denoiser.hold(row, range(25))
        rows += forward(denoiser, [noisy(row, 25, 15, 9)])
        rows += forward(denoiser, [noisy(row, 25, 15, 4), noisy(row, 25, 3, 4)])
        denoiser.release(row)
        rows += forward(denoiser, [noisy(row, 0, 40)])
        denoiser.hold(row, range(8))
        rows += forward(denoiser, [noisy(row, 8, 32)])
        denoiser.release(row)
        forward(denoiser, [Segment(row, tiny.tokens(12), range(12))])
        denoiser.freeze(row, 4)
        denoiser.hold(row, range(4, 9))
        found.append([*rows, *forward(denoiser, [noisy(row, 9, 5)])])
    same(*found)


@pytest.mark.parametrize("indices", [[0, 1, 2, 8, 9], [1, 2], [5, 4], [0, 2]])
def test_other_keys_cannot_be_held(both: tiny.Tiny, indices: list[int]) -> None:
    denoiser = ours(both, holds=True)
    row = denoiser.open_row()
    forward(denoiser, [noisy(row, 0, 10)])
    with pytest.raises(OptionError, match="approximate_cache='prefix'"):
        denoiser.hold(row, indices)


def test_nothing_joins_the_prefix_behind_held_keys(both: tiny.Tiny) -> None:
    denoiser = ours(both, holds=True)
    row = denoiser.open_row()
    forward(denoiser, [noisy(row, 0, 10)])
    denoiser.hold(row, range(6))
    forward(denoiser, [noisy(row, 6, 4)])
    with pytest.raises(GgufError, match="4 tokens cannot join the prefix: held keys stand before them"):
        denoiser.freeze(row, 4)
    with pytest.raises(OptionError, match="end of what"):
        denoiser.hold(row, range(2))
    with pytest.raises(GgufError, match="only 4 were forwarded"):
        denoiser.release(row)
        forward(denoiser, [noisy(row, 0, 4)])
        denoiser.freeze(row, 5)


def test_what_keys_and_values_take(both: tiny.Tiny) -> None:
    """Per position what a saved stream has more of them; in all no less than the context has."""
    denoiser = ours(both)
    assert denoiser.keys_bytes([]) == 0
    lengths = (600, 30, 700)
    rows = [prefixed(denoiser, length, seed) for seed, length in enumerate(lengths)]
    context = denoiser.context
    short, long = (len(context.save(denoiser._rows[row].stream or 0).data) for row in rows[1:])
    assert 0 <= (long - short) / (lengths[2] - lengths[1]) - context.position_bytes <= 16
    assert context.size.cells * context.position_bytes <= denoiser.keys_bytes(lengths)
