"""The block decoder in torch: plain and packed, it equals transformers."""

from typing import Any

import pytest
import torch

from dllm_kernels.decoder import INT8_KERNEL
from dllm_kernels.decoder import KERNEL
from dllm_kernels.decoder import Decoder
from dllm_kernels.decoder import shape_of
from dllm_kernels.decoder import take_weights
from dllm_kernels.decoder.plain import Int8Decoder
from dllm_kernels.decoder.plain import PackedDecoder
from dllm_kernels.decoder.plain import PlainDecoder
from dllm_kernels.decoder.store import BLOCK
from dllm_kernels.dispatch import KernelError
from dllm_kernels.dispatch import explain
from dllm_kernels.dispatch import implementations
from dllm_kernels.dispatch import kernel
from dllm_kernels.onednn import packing_fault
from dllm_kernels.tiles import CHUNK

from .decoders import BIASED
from .decoders import IMPLEMENTATIONS
from .decoders import KINDS
from .decoders import SHAPES
from .decoders import blocks
from .decoders import drawn
from .decoders import logits_of
from .decoders import network
from .decoders import row_of
from .decoders import run
from .decoders import runs


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("sizes", SHAPES, ids=lambda sizes: str(sizes["hidden_size"]))
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_transformers(kind: str, biased: bool, sizes: dict[str, Any], implementation: Any) -> None:
    """Random shapes, tied and untied, any mask, positions out of order."""
    extra: dict[str, Any] = BIASED[kind] if biased else {}
    model = network(kind, tie_word_embeddings=biased, **sizes, **extra)
    tokens, positions = drawn(23), torch.randperm(700, generator=torch.Generator().manual_seed(1))[:23]
    seen = (torch.rand(23, 23, generator=torch.Generator().manual_seed(2)) < 0.5) | torch.eye(23).bool()
    expected = logits_of(model, tokens, positions, seen)
    decoder = implementation(take_weights(model))
    (found,) = run(decoder, [(row_of(decoder), tokens, positions, seen)])
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
    # The model's parameters are views of the fused tensors now, and still its own.
    assert torch.equal(logits_of(model, tokens, positions, seen), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_implementations_agree_in_bfloat16(kind: str) -> None:
    """To the rounding of bfloat16, on rows of unequal lengths."""
    weights = take_weights(network(kind, torch.bfloat16, **SHAPES[1]))
    found = []
    for implementation in (item for item in IMPLEMENTATIONS if runs(item, torch.bfloat16)):
        decoder: Decoder = implementation(weights)
        rows = [(row_of(decoder), drawn(n, n), torch.arange(n), torch.ones(n, n).bool()) for n in (1, 17, 6)]
        found.append(torch.cat(run(decoder, rows)).float())
    assert found[0].abs().max() > 1
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=0.15, rtol=0.1)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_cached_equals_recomputed(implementation: Any) -> None:
    """Ragged rows, block after block behind their own prefixes, over the boundary of a chunk of keys."""
    model = network("qwen3")
    tokens = [drawn(CHUNK + 17, seed) for seed in (1, 2)]
    expected = [logits_of(model, row, torch.arange(len(row)), blocks(0, len(row))) for row in tokens]
    decoder = implementation(take_weights(model))
    stores, ends = [row_of(decoder), row_of(decoder)], [0, 0]
    for steps in ((CHUNK - 8, 5), (5, 10), (5, 120), (10, 5), (5, 5)):
        before = list(ends)
        ends = [begin + step for begin, step in zip(before, steps, strict=True)]
        spans = [torch.arange(begin, end) for begin, end in zip(before, ends, strict=True)]
        rows = [(stores[i], tokens[i][spans[i]], spans[i], blocks(before[i], ends[i])) for i in (0, 1)]
        for _ in range(2):
            # The second pass overwrites what the first one left behind the prefix.
            for row, found in enumerate(run(decoder, rows)):
                torch.testing.assert_close(found, expected[row][spans[row]], atol=3e-4, rtol=1e-4)
        for row, step in enumerate(steps):
            stores[row].pend(step)
            stores[row].freeze(step)
    assert [store.length for store in stores] == ends


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_first_part_of_a_row_leaves_its_keys(implementation: Any) -> None:
    """Two versions of a block in one pass do not see one another, and the first may be frozen."""
    model = network("qwen2")
    tokens, other = drawn(20), drawn(20, 9)
    whole = logits_of(model, tokens, torch.arange(20), blocks(0, 20))
    alone = logits_of(model, other[:10], torch.arange(10), blocks(0, 10))
    decoder = implementation(take_weights(model))
    store = row_of(decoder)
    versions = [(store, row[:10], torch.arange(10), blocks(0, 10)) for row in (tokens, other)]
    first, second = run(decoder, versions)
    torch.testing.assert_close(first, whole[:10], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(second, alone, atol=2e-4, rtol=1e-4)
    store.pend(10)
    store.freeze(10)
    (found,) = run(decoder, [(store, tokens[10:], torch.arange(10, 20), blocks(10, 20))])
    torch.testing.assert_close(found, whole[10:], atol=2e-4, rtol=1e-4)


ROPES = [
    {"rope_type": "linear", "factor": 4.0},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("rope", ROPES, ids=lambda rope: str(rope["rope_type"]))
def test_scaled_rotary_embeddings(rope: dict[str, Any], implementation: Any) -> None:
    """Those whose angles depend on the position alone."""
    model = network("llama", rope_parameters={"rope_theta": 10_000.0, **rope})
    tokens, positions, seen = drawn(9), torch.arange(300, 309), torch.ones(9, 9).bool()
    expected = logits_of(model, tokens, positions, seen)
    decoder = implementation(take_weights(model))
    (found,) = run(decoder, [(row_of(decoder), tokens, positions, seen)])
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("llama", {"hidden_act": "gelu"}, "hidden_act='silu', but this model has 'gelu'"),
        ("llama", {"model_type": "mistral"}, "model_type='llama' or .*'mistral'"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 2}, "layer_types='full_attention'.*'sliding_attention'"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic"}}, "rope_type=.*'dynamic'"),
    ],
)
def test_what_is_not_computed_is_refused(kind: str, changes: dict[str, Any], words: str) -> None:
    """With the value that does not fit."""
    config = network(kind).config
    for name, value in changes.items():
        object.__setattr__(config, name, value)
    with pytest.raises(KernelError, match=words):
        shape_of(config)


def test_one_place_one_dtype() -> None:
    """Weights that are spread, or not there, are refused."""
    model = network("llama")
    model.lm_head.to(torch.bfloat16)
    with pytest.raises(KernelError, match="all weights on one device in one dtype"):
        take_weights(model)
    with pytest.raises(KernelError, match="on meta"):
        take_weights(network("llama").to("meta"))


@pytest.mark.parametrize("tied", [False, True])
def test_one_copy_of_the_weights(tied: bool) -> None:
    """The model's parameters lie in the decoder's tensors."""
    model = network("qwen2", tie_word_embeddings=tied)
    size = sum(parameter.nbytes for parameter in model.parameters())
    weights = take_weights(model)
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    assert sum(storages.values()) == size
    assert (
        model.model.layers[1].self_attn.k_proj.weight.untyped_storage().data_ptr() == weights.layers[1].qkv.data_ptr()
    )
    assert (weights.head is weights.embedding or torch.equal(weights.head, weights.embedding)) == tied


def test_which_one_runs() -> None:
    """Compiled before packed before the reference, each with its reason if it cannot."""
    sizes = shape_of(network("llama", **SHAPES[1]).config).sizes()
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    known = {item.name: item for item in implementations(KERNEL)}
    assert [name for name in known if name != "gpu"] == ["compiled", "packed", "reference"]
    assert known["packed"].load() is PackedDecoder
    assert known["packed"].refuses(cpu, torch.float32, sizes) is None
    assert known["packed"].refuses(cpu, torch.bfloat16, sizes) == packing_fault(torch.bfloat16)
    assert kernel(INT8_KERNEL, cpu, torch.float16, sizes) is Int8Decoder
    assert kernel(KERNEL, cpu, torch.float16, sizes) is PlainDecoder
    assert "packed: runs on the cpu only, not on cuda" in explain(KERNEL, cuda, torch.float32, sizes)


def test_what_is_promised() -> None:
    """Row-invariance is promised on CPUs for heads of whole eights, by the class and by what it makes."""
    model = network("llama", **SHAPES[1])
    sizes, cpu = shape_of(model.config).sizes(), torch.device("cpu")
    assert PlainDecoder.promises(cpu, torch.float16, sizes)
    assert not Int8Decoder.promises(cpu, torch.float16, sizes)
    assert not PlainDecoder.promises(torch.device("cuda"), torch.float32, sizes)
    assert PlainDecoder(take_weights(model)).row_invariant
    odd = network("llama", **SHAPES[0])
    assert not PackedDecoder.promises(cpu, torch.float32, shape_of(odd.config).sizes())
    assert not PackedDecoder(take_weights(odd)).row_invariant


def test_a_pass_is_frozen_once() -> None:
    """Freezing more than was pending, or the same again, would keep keys of nothing."""
    store = row_of(PlainDecoder(take_weights(network("llama"))))
    store.reserve(4)
    with pytest.raises(KernelError, match="1 positions of the last pass are wanted, 0 are pending"):
        store.freeze(1)
    store.pend(4)
    store.freeze(3)
    with pytest.raises(KernelError, match="frozen already"):
        store.freeze(1)


def test_a_store_grows_by_a_quarter() -> None:
    """Whole blocks, and what was kept is still there."""
    store = row_of(PlainDecoder(take_weights(network("llama"))))
    store.reserve(8 * BLOCK)
    with torch.inference_mode():
        store.write(1, torch.ones(3, 2, 10), torch.ones(3, 2, 10))
    store.pend(3)
    store.freeze(3)
    store.reserve(8 * BLOCK)
    assert store.capacity == 10 * BLOCK
    assert store.nbytes == 2 * 2 * 2 * store.capacity * 10 * 4
    assert store.keys[1][:, :3].eq(1).all()
    assert not store.keys[1][:, 3:].any()
