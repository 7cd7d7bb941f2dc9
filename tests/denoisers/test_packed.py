"""Rows in one line: what transformers' own attention and cache give, in any company, and nothing is copied for it."""

import copy
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config
from transformers import Qwen2ForCausalLM

from dllm_plugins.denoisers import native
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.grouping import neighbours
from dllm_plugins.denoisers.grouping import similar
from dllm_plugins.denoisers.native import NativeDenoiser
from dllm_plugins.denoisers.native_cache import PAGE
from dllm_plugins.denoisers.native_cache import NativeCache
from dllm_plugins.denoisers.native_cache import as_cache

from ..modes.tiny_models import spec

SPEC = spec("diffusion", vocabulary=40, mask_id=39, context=512, stop_ids=frozenset(), cache="none", ids={}, holds=True)
#: Positions of a pass in which a row grows.
STEP = 40
Three = tuple[NativeDenoiser, NativeDenoiser, NativeDenoiser]


def network(**options: Any) -> Qwen2ForCausalLM:
    """Of two layers, with grouped heads and large weights, so that what is wrong is wrong by much."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 40}
    config = Qwen2Config(**sizes, num_attention_heads=4, num_key_value_heads=2, **options)
    made: Qwen2ForCausalLM = Qwen2ForCausalLM(config).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


@pytest.fixture
def three() -> Three:
    """The same weights with transformers' own attention, in one line row by row, and all rows in one line."""
    made = network()
    found = (
        NativeDenoiser(copy.deepcopy(made), SPEC, plain=True),
        NativeDenoiser(copy.deepcopy(made), SPEC),
        NativeDenoiser(made, SPEC, batch_invariant=False),
    )
    assert [denoiser.spec.batched for denoiser in found] == [False, False, True]
    return found


def drawn(length: int, seed: int) -> list[int]:
    """Tokens."""
    found: list[int] = torch.randint(0, 40, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return found


def whole(row: int, tokens: Sequence[int], begin: int = 0, **fields: Any) -> Segment:
    positions = range(begin, begin + len(tokens))
    return Segment(row, tokens, positions, **{"causal": False, "wanted": range(len(tokens)), **fields})


def told(denoiser: NativeDenoiser, segments: Sequence[Segment]) -> list[Tensor]:
    """Logits of every segment."""
    return [denoiser.logits(hidden) for hidden in denoiser.forward(segments)]


def alike(three: Three, segments: Sequence[Segment]) -> list[Tensor]:
    """One pass on all; they agree."""
    expected, *others = [told(denoiser, segments) for denoiser in three]
    for found in others:
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    return expected


def each(three: Three, act: Callable[[NativeDenoiser], Any]) -> None:
    """The same order to all."""
    for denoiser in three:
        act(denoiser)


def test_every_kind_of_segment(three: Three) -> None:
    """Causal, groups, behind, apart, several calls of a row, rows on unequal prefixes, held keys."""
    for _ in range(3):
        each(three, lambda denoiser: denoiser.open_row())
    alike(three, [whole(1, drawn(6, 1), causal=True), whole(2, drawn(3, 2)), whole(3, drawn(70, 3))])
    each(three, lambda denoiser: denoiser.freeze(1, 4))
    each(three, lambda denoiser: denoiser.freeze(2, 3))
    each(three, lambda denoiser: denoiser.hold(3, [0, 5, 69]))
    segments = [
        whole(1, drawn(5, 4), 4, groups=[0, 0, 1, 1, 1]),
        whole(1, drawn(5, 5), 4, behind=((0, 5),), apart=[0, 1, -1, 3, 4]),
        whole(1, drawn(7, 6), 4, causal=True),
        whole(2, drawn(2, 7), 3),
        whole(3, drawn(9, 8), 12),
    ]
    first = alike(three, segments)
    # The keys of each row's first segment are there, whatever came behind it.
    each(three, lambda denoiser: denoiser.freeze(1, 2))
    each(three, lambda denoiser: denoiser.freeze(3, 9))
    alike(three, [whole(1, drawn(3, 9), 6), whole(2, drawn(4, 10), 3, wanted=[1]), whole(3, drawn(1, 11), 21)])
    each(three, lambda denoiser: denoiser.release(3))
    assert {tuple(denoiser.close_row(row).length for row in (1, 2, 3)) for denoiser in three} == {(6, 3, 9)}
    assert not torch.allclose(first[0], first[1], atol=1e-2)


def test_one_by_one_no_bit_depends_on_company(three: Three) -> None:
    """Also where rows of other lengths stand on both sides."""
    denoiser = three[1]
    rows = [denoiser.open_row() for _ in range(3)]
    denoiser.forward([whole(row, drawn(20 + row, row)) for row in rows])
    for row in rows:
        denoiser.freeze(row, 20 + row)
    passes = [whole(row, drawn(5 + 6 * row, row), 20 + row) for row in rows]
    together = told(denoiser, passes)
    assert not any(denoiser.shared(row) for row in rows)
    for segment, found in zip(passes, together, strict=True):
        assert torch.equal(told(denoiser, [segment])[0], found)


def calls_of(denoiser: NativeDenoiser, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Positions of each call of the body, from now on."""
    seen: list[int] = []
    forward = denoiser._body.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["input_ids"].numel())
        return forward(*args, **kwargs)

    monkeypatch.setattr(denoiser._body, "forward", counted)
    return seen


def test_rows_share_a_call(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without padding; it is told, and calls of too many positions are divided."""
    for denoiser, expected in zip(three, ([9, 5, 3], [9, 5, 3], [17]), strict=True):
        seen = calls_of(denoiser, monkeypatch)
        rows = [denoiser.open_row() for _ in range(3)]
        segments = [whole(row, drawn(length, row)) for row, length in zip(rows, (3, 5, 9), strict=True)]
        denoiser.forward(segments)
        assert seen == expected
        assert [denoiser.shared(row) for row in rows] == [len(expected) == 1] * 3
        if denoiser.spec.batched:
            monkeypatch.setattr(native, "MOST", 8)
            denoiser.forward(segments)
            assert seen[1:] == [9, 8]
            assert [denoiser.shared(row) for row in rows] == [True, True, False]


def test_no_pass_copies_what_is_kept(three: Three) -> None:
    """Keys stay where they are while rows grow, until there is no room; then there is an eighth more."""
    for denoiser in three[1:]:
        row = denoiser.open_row()
        store, places, capacities = denoiser._rows[row], set[int](), list[int]()
        for begin in range(0, 10 * PAGE, STEP):
            denoiser.forward([whole(row, drawn(STEP, begin), begin, wanted=())])
            denoiser.freeze(row, STEP)
            places.add(store.keys[0].data_ptr())
            capacities.append(store.capacity)
        assert len(places) < len(capacities)
        assert all(capacity <= (step + 1) * STEP * 9 / 8 + PAGE for step, capacity in enumerate(capacities))
        assert store.nbytes == 2 * 2 * store.capacity * 2 * 8 * 4
        denoiser.close_row(row)


def test_rows_never_write_on_one_another(three: Three) -> None:
    """Two rows from one kept prefix, and the prefix itself, go on apart."""
    for denoiser in three:
        row = denoiser.open_row()
        denoiser.forward([whole(row, drawn(10, 1))])
        denoiser.freeze(row, 10)
        state = denoiser.close_row(row)
        assert isinstance(state, NativeCache)
        before = [tensor[:, :10].clone() for tensor in (*state.keys, *state.values)]
        rows = [denoiser.open_row(state, length) for length in (10, 7, 0)]
        segments = [whole(row, drawn(6, row), length) for row, length in zip(rows, (10, 7, 0), strict=True)]
        first = denoiser.forward(segments)
        for row in rows:
            denoiser.freeze(row, 6)
        own = [[tensor.data_ptr() for tensor in denoiser._rows[row].keys] for row in rows]
        assert len({place for places in (*own, [tensor.data_ptr() for tensor in state.keys]) for place in places}) == 8
        assert all(map(torch.equal, before, (tensor[:, :10] for tensor in (*state.keys, *state.values))))
        again = denoiser.open_row(state, 10)
        torch.testing.assert_close(denoiser.forward([whole(again, drawn(6, rows[0]), 10)])[0], first[0])
        assert state.length == 10


def test_a_store_is_what_transformers_cache_is() -> None:
    """Growing, with unequal heads: the same keys as a cache that is joined anew each time."""
    store, cache = NativeCache(), as_cache([])
    for step, count in enumerate((3, PAGE, 1, 2 * PAGE)):
        store.reserve(count)
        for layer, heads in enumerate((1, 2)):
            keys, values = torch.randn(1, heads, count, 4), torch.randn(1, heads, count, 6)
            cache.update(keys, values, layer)
            store.write(layer, keys[0], values[0], store.kept)
        store.pend(count)
        store.freeze(count)
        for (keys, values), layer in zip(store.layers(store.length), cache.layers, strict=True):
            assert torch.equal(keys, layer.keys), step
            assert torch.equal(values, layer.values), step


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rows_stay_apart_where_the_longest_position_counts(kind: str) -> None:
    """Such rotary frequencies are made for a whole call: a long row would change its neighbours."""
    factors = {"factor": 2.0, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    rope = {"rope_type": kind, "rope_theta": 10_000.0, "original_max_position_embeddings": 16, **factors}
    made = network(rope_parameters=rope, max_position_embeddings=16)
    denoiser = NativeDenoiser(made, SPEC, batch_invariant=False)
    assert not denoiser.spec.batched
    rows = [denoiser.open_row() for _ in range(2)]
    short = whole(rows[0], drawn(6, 1))
    (alone,) = told(denoiser, [short])
    assert torch.equal(told(denoiser, [short, whole(rows[1], drawn(40, 2))])[0], alone)


def test_a_class_that_keeps_the_pass_to_itself(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some layer is not told: rows are forwarded one by one from then on, and the spec says so."""
    plain, _, denoiser = three
    attention: Any = denoiser.model.model.layers[1].self_attn
    forward = attention.forward

    def deaf(*args: Any, dllm_pass: Any = None, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    monkeypatch.setattr(attention, "forward", deaf)
    for each_one in (plain, denoiser):
        assert [each_one.open_row() for _ in range(2)] == [1, 2]
    segments = [whole(1, drawn(6, 1)), whole(2, drawn(9, 2))]
    for _ in range(2):
        for found, expected in zip(told(denoiser, segments), told(plain, segments), strict=True):
            torch.testing.assert_close(found, expected)
        each((plain, denoiser, denoiser), lambda one: one.release(1))
    assert not denoiser.spec.batched
    assert not denoiser.shared(1)


def test_the_model_stays_as_it_was(three: Three) -> None:
    """Outside a pass its attention is the one it was made with, also after one that failed."""
    denoiser = three[2]
    row = denoiser.open_row()
    denoiser.forward([whole(row, drawn(4, 1))])
    assert denoiser.model.config._attn_implementation == "sdpa"
    with pytest.raises(IndexError):
        denoiser.forward([whole(row, [1_000])])
    assert denoiser.model.config._attn_implementation == "sdpa"
    ids = torch.tensor([drawn(5, 2)])
    with torch.inference_mode():
        expected = three[0].model(input_ids=ids).logits
        assert torch.equal(denoiser.model(input_ids=ids).logits, expected)


def test_groups() -> None:
    """No call of several rows is longer than it may be, nor is it mostly padding."""
    assert list(neighbours([3, 4, 9, 1, 2, 7], 8)) == [[0, 1], [2], [3, 4], [5]]
    assert list(neighbours([], 8)) == []
    assert list(similar([8, 3, 7, 6, 2], 100)) == [[0, 2, 3], [1], [4]]
    assert list(similar([8, 8, 8], 16)) == [[0, 1], [2]]
