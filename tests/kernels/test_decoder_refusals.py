"""What does not fit a decoder is refused before memory is read by its address."""

from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import fields
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_kernels.attention.pages import PagedRow
from dllm_kernels.attention.pages import PagePool
from dllm_kernels.decoder import Decoder
from dllm_kernels.decoder import DecoderWeights
from dllm_kernels.decoder import KeyValues
from dllm_kernels.decoder import LowRankPair
from dllm_kernels.decoder import Part
from dllm_kernels.decoder import take_weights
from dllm_kernels.decoder.checks import MOST_POSITIONS
from dllm_kernels.decoder.compiled import CompiledDecoder
from dllm_kernels.decoder.gpu import GpuDecoder
from dllm_kernels.decoder.plain import PlainDecoder
from dllm_kernels.dispatch import KernelError

from .decoders import SHAPES
from .decoders import drawn
from .decoders import network
from .decoders import row_of
from .decoders import run
from .test_decoder_low_rank import with_pairs

pytestmark = pytest.mark.usefixtures("built")

DECODERS: list[Callable[[DecoderWeights], Decoder]] = [CompiledDecoder, PlainDecoder, GpuDecoder]


def weights_of(kind: str = "qwen3", dtype: torch.dtype = torch.float32) -> DecoderWeights:
    """Every tensor that weights can have: biases, norms of heads, low-rank pairs."""
    extra = {"attention_bias": True} if kind != "llama" else {"attention_bias": True, "mlp_bias": True}
    return with_pairs(take_weights(network(kind, dtype, **SHAPES[1], **extra)))


def changed(weights: DecoderWeights, change: Callable[[Tensor], Tensor]) -> Iterator[tuple[str, DecoderWeights]]:
    """The weights with one tensor changed, for each of them, in the last layer where it is a layer's."""
    for field in fields(weights):
        tensor = getattr(weights, field.name)
        if isinstance(tensor, Tensor):
            other: dict[str, Any] = {field.name: change(tensor)}
            yield field.name, replace(weights, **other)
    last = weights.layers[-1]
    for field in fields(last):
        if (tensor := getattr(last, field.name)) is not None:
            layer = replace(last, **{field.name: change(tensor)})
            yield field.name, replace(weights, layers=(*weights.layers[:-1], layer))
    assert weights.low_rank is not None
    for place, pair in enumerate(weights.low_rank[-1]):
        for wrong in (LowRankPair(change(pair.down), pair.up), LowRankPair(pair.down, change(pair.up))):
            pairs = (*weights.low_rank[-1][:place], wrong, *weights.low_rank[-1][place + 1 :])
            yield f"pair {place}", replace(weights, low_rank=(*weights.low_rank[:-1], pairs))


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "a row less": lambda tensor: tensor[:-1],
    "a column less": lambda tensor: tensor[..., :-1],
    "an axis more": lambda tensor: tensor[None],
    "an integer": lambda tensor: tensor.to(torch.int8),
    "twice as wide a dtype": lambda tensor: tensor.double(),
    "no memory": lambda tensor: tensor.to("meta"),
}


@pytest.mark.parametrize("make", DECODERS)
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_no_weight_of_another_size_or_dtype_is_taken(make: Callable[[DecoderWeights], Decoder], kind: str) -> None:
    """Each single tensor, in any of the ways it can be wrong, is named."""
    weights, tried = weights_of(kind), 0
    for name, change in CHANGES.items():
        for tensor, other in changed(weights, change):
            if (tensor, name) == ("frequencies", "no memory"):
                continue
            with pytest.raises(KernelError):
                make(other)
                pytest.fail(f"{tensor} with {name} was taken")
            tried += 1
    assert tried >= 6 * 20
    make(weights)


@pytest.mark.parametrize("make", DECODERS)
@pytest.mark.parametrize(
    "sizes", [{"heads": 3}, {"kv_heads": 3}, {"head_dim": 15}, {"layers": 3}, {"vocabulary": 0}, {"hidden": True}]
)
def test_no_shape_that_contradicts_itself_is_taken(
    make: Callable[[DecoderWeights], Decoder], sizes: dict[str, Any]
) -> None:
    """Numbers that do not divide one another, of no tensor, or no numbers."""
    weights = weights_of()
    with pytest.raises(KernelError):
        make(replace(weights, shape=replace(weights.shape, **sizes)))
    with pytest.raises(KernelError):
        make(replace(weights, low_rank=(weights.low_rank or ())[:1]))


def a_pass(decoder: Decoder, **other: Any) -> Tensor:
    """Five positions of one row; `other` replaces what is given."""
    store = decoder.new_store()
    store.reserve(5)
    given = {"tokens": drawn(5), "positions": torch.arange(5), "noisy": torch.zeros(5).bool()} | other
    seen = given.pop("seen", torch.ones(5, 5).bool())
    parts = given.pop("parts", [Part(store, given.pop("rows", slice(0, 5)), seen)])
    return decoder.forward(**given, parts=parts)


WRONG: dict[str, dict[str, Any]] = {
    "an id too large": {"tokens": torch.tensor([0, 1, 71, 2, 3])},
    "an id below 0": {"tokens": torch.tensor([0, 1, -1, 2, 3])},
    "ids of another dtype": {"tokens": drawn(5).int()},
    "fewer ids": {"tokens": drawn(4)},
    "ids on two axes": {"tokens": drawn(5)[None]},
    "a position below 0": {"positions": torch.tensor([0, 1, 2, 3, -4])},
    "an absurd position": {"positions": torch.tensor([0, 1, 2, 3, MOST_POSITIONS])},
    "fewer positions": {"positions": torch.arange(3)},
    "positions of another dtype": {"positions": torch.arange(5).float()},
    "fewer flags": {"noisy": torch.ones(4).bool()},
    "flags of another dtype": {"noisy": torch.ones(5)},
    "a smaller mask": {"seen": torch.ones(5, 4).bool()},
    "a mask of another dtype": {"seen": torch.ones(5, 5)},
    "rows elsewhere": {"rows": slice(1, 6)},
    "fewer rows": {"rows": slice(0, 4)},
    "no part": {"parts": []},
}


@pytest.mark.parametrize("make", DECODERS)
def test_no_pass_that_reads_or_writes_elsewhere_is_made(make: Callable[[DecoderWeights], Decoder]) -> None:
    """Ids, positions, flags, masks and parts, and stores without room or of another decoder."""
    weights = with_pairs(take_weights(network("llama", **SHAPES[1])))
    decoder = make(weights)
    expected = a_pass(decoder)
    for name, other in WRONG.items():
        with pytest.raises(KernelError):
            a_pass(decoder, **other)
            pytest.fail(f"{name} was taken")
    full = torch.ones(5, 5).bool()
    smaller = take_weights(network("llama", **{**SHAPES[1], "num_hidden_layers": 1}))
    others = (make(smaller), PlainDecoder(weights) if make is not PlainDecoder else CompiledDecoder(weights))
    for store in (decoder.new_store(), *(other.new_store() for other in others)):
        if store is not None and type(store) is not type(decoder.new_store()):
            store.reserve(5)
        with pytest.raises(KernelError):
            a_pass(decoder, parts=[Part(store, slice(0, 5), full)])
    assert torch.equal(a_pass(decoder), expected)


@pytest.mark.parametrize("kind", ["keys", "compiled", "pages"])
def test_stores_keep_no_more_than_they_have(kind: str) -> None:
    """Counts and places outside what was reserved, forwarded or frozen."""
    weights = take_weights(network("llama", **SHAPES[1]))
    rows: dict[str, Callable[[], KeyValues | PagedRow]] = {
        "keys": lambda: row_of(PlainDecoder(weights)),
        "compiled": lambda: row_of(CompiledDecoder(weights)),
        "pages": lambda: PagedRow(PagePool(2, 4, 16, torch.float32, torch.device("cpu"))),
    }
    store = rows[kind]()
    with pytest.raises(KernelError):
        store.pend(1)
    store.reserve(9)
    for count in (-1, store.capacity + 1):
        with pytest.raises(KernelError):
            store.pend(count)
    store.pend(9)
    for wrong in (
        lambda: store.freeze(10),
        lambda: store.freeze(-1),
        lambda: store.hold([9]),
        lambda: store.hold([-1]),
        lambda: store.copy(1),
    ):
        with pytest.raises(KernelError):
            wrong()
    store.freeze(9)
    for length in (-1, 10):
        with pytest.raises(KernelError):
            store.copy(length)
    assert (store.copy(9).length, store.length) == (9, 9)


def test_no_head_or_product_of_other_rows() -> None:
    """Widths, dtypes, draws."""
    decoder = CompiledDecoder(take_weights(network("llama", **SHAPES[1])))
    hidden, noise = torch.randn(2, 64), torch.zeros(71, dtype=torch.float64)
    for rows in (hidden[:, :63], hidden.double(), hidden[0], hidden.bfloat16(), hidden.to("meta")):
        with pytest.raises(KernelError):
            decoder.logits(rows)
        with pytest.raises(KernelError):
            decoder.unmask(rows, [0.0, 0.0], [None, None])
    wrong: list[tuple[list[float], list[Tensor | None]]] = [
        ([0.0], [None, None]),
        ([0.0, 0.0, 0.0], [None, None, None]),
        ([1.0, 0.0], [noise[:-1], None]),
        ([0.0, 0.0], [noise, None]),
        ([float("nan"), 0.0], [noise, None]),
    ]
    for temperatures, noises in wrong:
        with pytest.raises(KernelError):
            decoder.unmask(hidden, temperatures, noises)
    for weight, bias in ((hidden[0], None), (hidden.int(), None), (hidden, torch.zeros(3))):
        with pytest.raises(KernelError):
            decoder.product(weight, bias)
    assert decoder.unmask(hidden, [1.0, 0.0], [noise, None]).token.shape == (2,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_odd_ranks_and_widths_are_computed(dtype: torch.dtype) -> None:
    """bfloat16 is multiplied in pairs; the half of the last pair that is not there counts as zero."""
    weights = take_weights(network("llama", dtype, **SHAPES[1]))
    noise = torch.Generator().manual_seed(3)
    pairs = tuple(
        tuple(
            LowRankPair(
                (torch.randn(3, matrix.shape[1], generator=noise) / 8).to(dtype),
                (torch.randn(len(matrix), 3, generator=noise) / 8).to(dtype),
            )
            for matrix in (layer.qkv, layer.out, layer.gate_up, layer.down)
        )
        for layer in weights.layers
    )
    even = tuple(
        tuple(
            LowRankPair(torch.cat([pair.down, pair.down[:1]]), torch.cat([pair.up, pair.up[:, :1] * 0], dim=1))
            for pair in layer
        )
        for layer in pairs
    )
    noisy, seen = torch.ones(7).bool(), torch.ones(7, 7).bool()
    found = []
    for low_rank in (pairs, even):
        decoder = CompiledDecoder(replace(weights, low_rank=low_rank))
        found += run(decoder, [(row_of(decoder), drawn(7), torch.arange(7), seen)], noisy)
    assert torch.equal(found[0], found[1])
    matrix, x = torch.randn(5, 33, generator=noise).to(dtype), torch.randn(4, 33, generator=noise).to(dtype)
    expected = x.double() @ matrix.double().T
    torch.testing.assert_close(decoder.product(matrix)(x).double(), expected, atol=1e-4, rtol=1e-4)
