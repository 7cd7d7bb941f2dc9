"""The fast block decoder does not depend on its company: the same bits alone and batched."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_kernels import tiles
from dllm_kernels.decoder import Decoder
from dllm_kernels.decoder import attention
from dllm_kernels.decoder import layers
from dllm_kernels.decoder import matrices
from dllm_kernels.decoder import products
from dllm_kernels.decoder import take_weights
from dllm_kernels.decoder.matrices import Form
from dllm_kernels.decoder.matrices import Matrix
from dllm_kernels.decoder.plain import Int8Decoder
from dllm_kernels.decoder.plain import PackedDecoder
from dllm_kernels.decoder.plain import PlainDecoder
from dllm_kernels.decoder.store import BLOCK

from .decoders import KINDS
from .decoders import SHAPES
from .decoders import drawn
from .decoders import network
from .decoders import parts
from .decoders import row_of
from .decoders import run
from .decoders import runs
from .decoders import skip_unless_run

FAST: list[Any] = [PlainDecoder, PackedDecoder, Int8Decoder]


def walked(decoder: Decoder, tokens: Tensor, sizes: Sequence[int], company: int = 0) -> Tensor:
    """Causal logits of every token, so many a pass, beside `company` other rows of unequal lengths."""
    store = row_of(decoder)
    others = [row_of(decoder) for _ in range(company)]
    found = []
    for part, places in zip(tokens.split(list(sizes)), torch.arange(len(tokens)).split(list(sizes)), strict=True):
        seen = torch.arange(int(places[-1]) + 1)[None] <= places[:, None]
        rows = [(store, part, places, seen)]
        for index, other in enumerate(others):
            n = 2 + 5 * index
            rows.insert(index % 2, (other, drawn(n, index), torch.arange(n), torch.ones(n, n).bool()))
        mine = next(index for index, row in enumerate(rows) if row[0] is store)
        found += run(decoder, rows, wanted=[mine])
        store.pend(len(part))
        store.freeze(len(part))
    return torch.cat(found)


#: Tokens a pass, and other rows beside them.
CASES = [(1, 0), (1, 3), (2, 0), (9, 0), (16, 0), (25, 0), (9, 4), (16, 1), (25, 2)]


def assert_row_invariant(
    decoder: Decoder, tokens: Tensor, most: int = 12, cases: Sequence[tuple[int, int]] = CASES
) -> None:
    """Bit-equal logits for each of `cases` and all at once.

    :param most: passes of one or two tokens, half of them at either end.
    """
    count = len(tokens)
    together = walked(decoder, tokens, [count])
    for at_once, company in cases:
        found = walked(decoder, tokens, parts(count, at_once, most if at_once < 9 else None), company)
        assert torch.equal(found, together), (at_once, company)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_row_invariant(kind: str, dtype: torch.dtype, threads: int) -> None:
    """Of every kind of decoder."""
    weights = take_weights(network(kind, dtype, **SHAPES[1]))
    for implementation in (item for item in FAST if runs(item, dtype)):
        assert_row_invariant(implementation(weights), drawn(44))


@pytest.mark.parametrize("kind", KINDS)
def test_row_invariant_in_float16(kind: str, threads: int) -> None:
    """As the plain form promises."""
    assert_row_invariant(PlainDecoder(take_weights(network(kind, torch.float16, **SHAPES[1]))), drawn(44))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [SHAPES[0], SHAPES[2]], ids=["36", "40"])
def test_row_invariant_on_odd_shapes(sizes: dict[str, int], dtype: torch.dtype, threads: int) -> None:
    """Widths that no vector of the machine divides."""
    model = network("qwen3", dtype, **{**sizes, "head_dim": 24})
    weights = take_weights(model)
    for implementation in (item for item in FAST if runs(item, dtype)):
        assert_row_invariant(implementation(weights), drawn(44))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("implementation", FAST)
def test_row_invariant_over_blocks_of_keys(implementation: Any, dtype: torch.dtype) -> None:
    """The last positions before the end of a block of keys and the first behind it, alone and together."""
    skip_unless_run(implementation, dtype)
    decoder = implementation(take_weights(network("qwen3", dtype, **SHAPES[1])))
    tokens, cut = drawn(BLOCK + 30), BLOCK - 9
    rows = [row_of(decoder) for _ in range(3)]
    for store in rows:
        run(decoder, [(store, tokens[:cut], torch.arange(cut), torch.ones(cut, cut).bool().tril())])
        store.pend(cut)
        store.freeze(cut)
    found = []
    for store, at_once in zip(rows, (1, 9, 39), strict=True):
        logits = []
        for begin in range(cut, len(tokens), at_once):
            part = tokens[begin : begin + at_once]
            places = torch.arange(begin, begin + len(part))
            logits += run(decoder, [(store, part, places, torch.ones(len(part), len(part)).bool().tril())])
            store.pend(len(part))
            store.freeze(len(part))
        found.append(torch.cat(logits))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_row_invariant_at_the_default_models_widths(dtype: torch.dtype, threads: int) -> None:
    """A layer as wide as SmolLM2-135M's, where products are split over threads.

    One layer proves what thirty would: each maps rows to rows by the same code, and equal bits
    in give equal bits out. Stores of several layers are tested at smaller widths above, and all
    thirty where the default model's batches are compared with its rows alone.
    """
    sizes: dict[str, Any] = {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    }
    model = network("llama", dtype, **sizes, head_dim=64, vocab_size=1024, num_hidden_layers=1)
    weights = take_weights(model)
    # Without instructions for bfloat16 and int8 each of these passes takes a tenth of a second.
    cases = [(1, 0), (1, 3), (9, 4), (25, 2)]
    for implementation in (item for item in FAST if runs(item, dtype)):
        assert_row_invariant(implementation(weights), drawn(34), most=4, cases=cases)


@pytest.mark.parametrize("implementation", FAST)
def test_threads_do_not_matter(implementation: Any) -> None:
    """One thread and two give the same bits."""
    skip_unless_run(implementation, torch.bfloat16)
    weights = take_weights(network("qwen3", torch.bfloat16, hidden_size=256, intermediate_size=768, head_dim=64))
    decoder = implementation(weights)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(walked(decoder, drawn(60), parts(60, 25)))
    torch.set_num_threads(before)
    assert torch.equal(*found)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tiles_of_one_size(dtype: torch.dtype, implementation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where wider products or the fused attention would differ, tiles of one size serve."""
    skip_unless_run(implementation, dtype)
    monkeypatch.setattr(products, "agree", lambda matrix, like: False)
    monkeypatch.setattr(attention, "agree", lambda *_: False)
    seen: set[int] = set()
    made = matrices.matrix

    def watched(form: Form, weight: Tensor, bias: Tensor | None = None) -> Matrix:
        whole = made(form, weight, bias)

        class Watched:
            outs, key = whole.outs, whole.key

            def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
                seen.add(len(x))
                return whole(x, out)

        return Watched()

    monkeypatch.setattr(layers, "matrix", watched)
    assert_row_invariant(implementation(take_weights(network("qwen2", dtype, **SHAPES[1]))), drawn(50))
    assert seen == {products.STEP}


def test_wider_products_are_measured() -> None:
    """A library that rounds otherwise for many rows is found out."""
    whole = matrices.PlainMatrix(torch.randn(20, 24), None)

    class Moody:
        outs, key = whole.outs, whole.key

        def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
            return whole(x).mul_(1 + 1e-6 * (len(x) == 48))

    x = torch.randn(16, 24)
    assert products.agree(whole, x) == (products.Products().width(whole, x) == products.WIDEST)
    assert not products.agree(Moody(), x)
    assert products.Products().width(Moody(), x) == products.STEP


@pytest.mark.parametrize("fault", ["length", "place", "company"])
def test_the_fused_attention_is_measured(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose bits depend on hidden keys, on a query's place or on its tile's company is found out."""
    fused = attention._fused

    def moody(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        found = fused(q, keys, values, mask)
        if fault == "length" and keys.shape[1] > BLOCK:
            found *= 1 + 1e-6
        if fault == "place":
            found[4] *= 1 + 1e-6
        if fault == "company" and len(q) > 3 * 16:
            found *= 1 + 1e-6
        return found

    monkeypatch.setattr(attention, "_fused", moody)
    assert not attention.agree(4, 2, 16, torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_equals_the_tiles(dtype: torch.dtype) -> None:
    """Fused or not, over many groups of queries, some of which see nothing in the first block."""
    noise = torch.Generator().manual_seed(0)
    q = torch.randn(300, 6, 16, generator=noise).to(dtype)
    keys, values = (torch.randn(2, 2 * BLOCK, 16, generator=noise).to(dtype) for _ in "kv")
    seen = torch.rand(300, 2 * BLOCK, generator=noise) < 0.1
    seen[:50, :BLOCK] = False
    seen[:, -1] = True
    expected = tiles.attend(q.float(), keys.float(), values.float(), seen)
    found = attention.Attention()(q, keys, values, attention.Mask(seen, 3, dtype)).float()
    torch.testing.assert_close(found, expected, atol=1e-5 if dtype == torch.float32 else 2e-2, rtol=1e-2)


def test_products_equal_torch() -> None:
    """Any number of whole steps, with and without a bias, packed and plain."""
    made, weight, bias = products.Products(), torch.randn(20, 24), torch.randn(20)
    for form in ("plain", "packed"):
        for rows in (16, 48, 128, 144, 320):
            x = torch.randn(rows, 24)
            for added in (None, bias):
                expected = torch.nn.functional.linear(x, weight, added)
                matrix = matrices.matrix(form, weight, added)
                torch.testing.assert_close(made(x, matrix), expected)
                torch.testing.assert_close(made(x, matrix, torch.empty(rows, 20)), expected)
