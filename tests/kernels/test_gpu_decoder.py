"""The decoder for GPUs, which records its passes: held to the reference decoder on the CPU."""

import gc
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_kernels.attention import Prefix
from dllm_kernels.attention import RowBlocks
from dllm_kernels.attention.pages import PAGE
from dllm_kernels.attention.pages import PagedRow
from dllm_kernels.decoder import KERNEL
from dllm_kernels.decoder import DecoderWeights
from dllm_kernels.decoder import LowRankPair
from dllm_kernels.decoder import gpu
from dllm_kernels.decoder import take_weights
from dllm_kernels.decoder.gpu import GpuDecoder
from dllm_kernels.decoder.plain import PlainDecoder
from dllm_kernels.dispatch import KernelError
from dllm_kernels.dispatch import explain
from dllm_kernels.dispatch import implementations

from .decoders import BIASED
from .decoders import KINDS
from .decoders import SHAPES
from .decoders import blocks
from .decoders import drawn
from .decoders import network
from .decoders import run
from .recordings import Recorder

#: A row of a pass: tokens, their positions, who sees whom.
Row = tuple[Tensor, Tensor, Tensor]


def dense(q: Tensor, k: Tensor, v: Tensor, prefix: Prefix, parts: RowBlocks) -> Tensor:
    """Block attention without a look at any number, as on a GPU: all keys there could be, most of them hidden."""
    count, heads, size = q.shape
    room, widest = prefix.table.shape[1] * prefix.page, parts.own.shape[1]
    place = torch.arange(count)
    row = (place[:, None] >= parts.starts[None, 1:]).sum(1).clamp(max=len(prefix.lengths) - 1)
    kept = [pool[prefix.table[row].long()].reshape(count, room, -1, size) for pool in (prefix.keys, prefix.values)]
    own = (parts.starts[row][:, None] + torch.arange(widest)).clamp(max=count - 1)
    keys, values = (torch.cat([old, new[own]], 1).float() for old, new in zip(kept, (k, v), strict=True))
    seen = torch.cat([torch.arange(room) < prefix.lengths[row][:, None], parts.own], 1)[:, None]
    share = heads // k.shape[1]
    keys, values = keys.repeat_interleave(share, 2), values.repeat_interleave(share, 2)
    scores = torch.einsum("nhd,nkhd->nhk", q.float(), keys) * size**-0.5
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1).masked_fill(~seen, 0.0)
    return torch.einsum("nhk,nkhd->nhd", weights, values).to(q.dtype).flatten(1)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Callable[[DecoderWeights], tuple[GpuDecoder, Recorder]]:
    """Make a decoder whose passes are recorded."""

    def make(weights: DecoderWeights) -> tuple[GpuDecoder, Recorder]:
        recorder = Recorder()
        monkeypatch.setattr(gpu, "_attention", lambda *_: ("reference", dense))
        return GpuDecoder(weights, record=recorder), recorder

    return make


class Pair:
    """The reference decoder and another one, driven alike: every pass must give the same logits."""

    def __init__(self, other: Any, rows: int, tolerance: float = 3e-4) -> None:
        self.decoders: list[Any] = [PlainDecoder(other.weights), other]
        self.stores: list[list[Any]] = [[each.new_store() for _ in range(rows)] for each in self.decoders]
        self.tolerance = tolerance

    def run(self, rows: dict[int, Row], noisy: Tensor | None = None) -> None:
        found = []
        for decoder, stores in zip(self.decoders, self.stores, strict=True):
            found.append(run(decoder, [(stores[row], *rows[row]) for row in rows], noisy))
        for expected, each in zip(*found, strict=True):
            torch.testing.assert_close(each, expected, atol=self.tolerance, rtol=self.tolerance)

    def each(self, action: Callable[[Any], Any]) -> None:
        for stores in self.stores:
            for store in stores:
                action(store)

    def freeze(self, counts: Sequence[int]) -> None:
        for stores in self.stores:
            for store, count in zip(stores, counts, strict=True):
                store.pend(count)
                store.freeze(count)


def causal(begin: int, count: int, seed: int) -> Row:
    return drawn(count, seed), torch.arange(begin, begin + count), torch.ones(count, count).bool().tril()


def walk(pair: Pair) -> None:
    """Two rows of unequal lengths, block after block, each predicted twice, over a page's end."""
    ends = [0, 0]
    for step, sizes in enumerate(((PAGE - 8, 5), (5, 10), (5, 70), (10, 5), (9, 3))):
        for again in (0, 1):
            rows = {}
            for row, size in enumerate(sizes):
                span = torch.arange(ends[row], ends[row] + size)
                rows[row] = (drawn(size, 10 * step + 2 * row + again), span, blocks(ends[row], ends[row] + size))
            pair.run(rows)
        pair.freeze(sizes)
        ends = [end + size for end, size in zip(ends, sizes, strict=True)]


@pytest.mark.parametrize("sizes", SHAPES, ids=lambda sizes: str(sizes["hidden_size"]))
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_reference(kind: str, sizes: dict[str, Any]) -> None:
    """Biases, norms of heads, groups, odd widths; ragged rows behind their prefixes."""
    walk(Pair(GpuDecoder(take_weights(network(kind, **sizes, **BIASED[kind]))), 2))


def test_equals_the_reference_in_bfloat16() -> None:
    """To the rounding of bfloat16."""
    pair = Pair(GpuDecoder(take_weights(network("qwen3", torch.bfloat16, **SHAPES[1]))), 2, tolerance=0.15)
    pair.run({0: causal(0, 17, 1), 1: causal(0, 6, 2)})
    pair.freeze((17, 6))
    pair.run({0: causal(17, 1, 3), 1: causal(6, 20, 4)})


def test_several_parts_of_a_row() -> None:
    """They do not see one another, and the first one's keys stay, for the hold of some and the freeze of others."""
    decoder = GpuDecoder(take_weights(network("qwen2")))
    pair = Pair(decoder, 1)
    pair.run({0: causal(0, 7, 1)})
    pair.freeze([7])
    for stores, each in zip(pair.stores, pair.decoders, strict=True):
        one, other = (stores[0], *causal(7, 9, 2)), (stores[0], *causal(7, 4, 3))
        alone = run(each, [one])[0], run(each, [other])[0]
        for found, expected in zip(run(each, [one, other]), alone, strict=True):
            torch.testing.assert_close(found, expected, atol=3e-4, rtol=3e-4)
        stores[0].pend(9)
    pair.each(lambda store: store.hold([1, 5, 6]))
    pair.run({0: causal(16, 3, 4)})
    pair.each(lambda store: store.pend(3))
    pair.each(lambda store: store.freeze(2))
    pair.run({0: causal(9, 5, 5)})
    pair.each(lambda store: store.release())
    pair.run({0: causal(9, 5, 6)})
    pair.stores = [[store.copy(8) for store in stores] for stores in pair.stores]
    pair.run({0: causal(8, 5, 7)})
    assert {store.length for stores in pair.stores for store in stores} == {8}


def with_pairs(weights: DecoderWeights) -> DecoderWeights:
    noise = torch.Generator().manual_seed(3)

    def pair(weight: Tensor) -> LowRankPair:
        return LowRankPair(
            torch.randn(4, weight.shape[1], generator=noise) / 8, torch.randn(len(weight), 4, generator=noise) / 4
        )

    pairs = tuple(
        tuple(pair(weight) for weight in (layer.qkv, layer.out, layer.gate_up, layer.down)) for layer in weights.layers
    )
    return replace(weights, low_rank=pairs, low_rank_scale=2.0)


def test_low_rank_pairs_act_at_noisy_positions() -> None:
    """And nowhere else; without pairs they are refused."""
    decoder = GpuDecoder(with_pairs(take_weights(network("llama"))))
    pair = Pair(decoder, 2)
    noisy = torch.arange(15) % 3 == 1
    pair.run({0: causal(0, 9, 1), 1: causal(0, 6, 2)}, noisy)
    pair.run({0: causal(0, 9, 1), 1: causal(0, 6, 2)}, torch.zeros(15).bool())
    seen = torch.eye(9).bool()
    row = (decoder.new_store(), drawn(9), torch.arange(9), seen)
    found = run(decoder, [row], torch.arange(9) < 4)[0]  # type: ignore[list-item]
    clean = run(decoder, [row])[0]  # type: ignore[list-item]
    assert torch.equal(found[4:], clean[4:])
    assert (found[:4] - clean[:4]).abs().amax(1).min() > 0.01
    plain = Pair(GpuDecoder(replace(decoder.weights, low_rank=None)), 1)
    with pytest.raises(KernelError, match="noisy positions need low-rank pairs"):
        plain.run({0: causal(0, 3, 1)}, torch.ones(3).bool())


def test_recorded_passes_equal_the_reference(recorded: Any) -> None:
    """At any prefix; a recording serves until a row's pages double or the pool moves."""
    decoder, recorder = recorded(with_pairs(take_weights(network("qwen3"))))
    pair = Pair(decoder, 2)
    counts = []
    for step in range(12):
        size = 11 + step % 3
        rows = {row: causal(int(pair.stores[0][row].length), size, 2 * step + row) for row in (0, 1)}
        pair.run(rows)
        pair.run(rows)
        pair.freeze((size, 5))
        counts.append(recorder.recorded)
    # Row 0 has 143 keys in the end: one, two and four pages.
    assert counts[0] == 1
    assert counts[-1] == 3
    assert recorder.replayed == 24
    pair.run({0: causal(144, 3, 1), 1: causal(60, 16, 2)}, torch.arange(19) < 7)
    assert recorder.recorded == 4


def test_a_pool_that_moved_is_recorded_anew(recorded: Any) -> None:
    """Old recordings would write where the keys were."""
    decoder, recorder = recorded(take_weights(network("llama")))
    pair = Pair(decoder, 1)
    pair.run({0: causal(0, 5, 1)})
    pair.freeze([5])
    decoder.new_store().reserve(40 * PAGE)
    pair.run({0: causal(5, 5, 2)})
    pair.freeze([5])
    pair.run({0: causal(10, 5, 3)})
    assert (recorder.recorded, recorder.replayed) == (2, 3)


def test_long_passes_are_not_recorded(recorded: Any) -> None:
    decoder, recorder = recorded(take_weights(network("llama", num_hidden_layers=1)))
    pair = Pair(decoder, 1)
    pair.run({0: causal(0, gpu.RECORDED_ROWS + 1, 1)})
    assert recorder.recorded == 0


def test_pages_go_back() -> None:
    """When a row is no longer held; and a pool grows for those that are."""
    decoder = GpuDecoder(take_weights(network("llama")))
    rows = [decoder.new_store() for _ in range(3)]
    free = rows[0].pool.free
    for row in rows:
        row.reserve(2 * PAGE + 1)
    assert rows[0].nbytes == 3 * PAGE * 2 * 2 * 2 * 10 * 4
    assert rows[0].pool.free == free - 9
    assert len({page for row in rows for page in row.pages} - {0}) == 9
    pool = rows.pop().pool
    del row
    gc.collect()
    assert pool.free == free - 6
    rows[0].reserve(100 * PAGE)
    assert pool.version == 1
    assert len({page for row in rows for page in row.pages} - {0}) == 103


def test_what_a_row_refuses() -> None:
    """Freezing what is not pending or twice, and another decoder's rows."""
    decoder, other = (GpuDecoder(take_weights(network("llama"))) for _ in (0, 1))
    store: PagedRow = decoder.new_store()
    store.reserve(4)
    with pytest.raises(KernelError, match="1 positions of the last pass are wanted, 0 are pending"):
        store.freeze(1)
    store.pend(4)
    store.freeze(3)
    with pytest.raises(KernelError, match="frozen already"):
        store.freeze(1)
    with pytest.raises(KernelError, match="4 positions of the last pass are wanted"):
        store.pend(3)
        store.hold([3])
    for foreign in (store, PlainDecoder(decoder.weights).new_store()):
        with pytest.raises(KernelError, match=r"is another decoder's; use this one's new_store\(\)"):
            run(other, [(foreign, *causal(0, 3, 1))])  # type: ignore[list-item]


def test_row_invariance_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library whose bits change with the number of rows is found out."""

    class Steady(GpuDecoder):
        def _compute(self, *tensors: Tensor) -> Tensor:
            return tensors[0][:, None].float()

    class Moody(Steady):
        def _compute(self, *tensors: Tensor) -> Tensor:
            return super()._compute(*tensors) * (1 + 1e-6 * len(tensors[0]))

    weights = take_weights(network("llama"))
    assert not Steady(weights).row_invariant
    monkeypatch.setattr(gpu, "_attention", lambda *_: ("triton", dense))
    assert Steady(weights).row_invariant
    assert not Moody(weights).row_invariant


def test_which_one_runs() -> None:
    """Chosen on GPUs, refused on CPUs, with the reason."""
    sizes = take_weights(network("llama", **SHAPES[1])).shape.sizes()
    reasons = explain(KERNEL, torch.device("cpu"), torch.float32, sizes)
    assert "gpu: runs on GPUs, not on cpu" in reasons
    assert "gpu: chosen" in explain(KERNEL, torch.device("cuda"), torch.bfloat16, sizes)
    assert "gpu: sums in float32, so it does not take torch.float64" in explain(
        KERNEL, torch.device("cuda"), torch.float64, sizes
    )
    found = {item.name: item for item in implementations(KERNEL)}
    assert found["gpu"].load() is GpuDecoder


def test_unknown_attention_is_refused() -> None:
    weights = take_weights(network("llama"))
    with pytest.raises(KernelError, match=r"'flash' is unknown; choose one of \['reference', 'triton'\]"):
        GpuDecoder(weights, attend="flash")
    with pytest.raises(KernelError, match=r"block_attention as 'triton' .*; leave the implementation out"):
        GpuDecoder(weights, attend="triton")


def check_the_decoder_on_triton() -> None:
    """Run by test_block_attention.py, in the process where Triton interprets."""
    walk(Pair(GpuDecoder(take_weights(network("qwen3", **SHAPES[1])), attend="triton"), 2))
