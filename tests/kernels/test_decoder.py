"""The block decoder: both implementations equal transformers, and the fast one does not depend on its company."""

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers import LlamaForCausalLM
from transformers import Qwen2Config
from transformers import Qwen2ForCausalLM
from transformers import Qwen3Config
from transformers import Qwen3ForCausalLM

from dllm_kernels.decoder import KERNEL
from dllm_kernels.decoder import Decoder
from dllm_kernels.decoder import KeyValues
from dllm_kernels.decoder import Part
from dllm_kernels.decoder import shape_of
from dllm_kernels.decoder import take_weights
from dllm_kernels.decoder.cpu import CpuDecoder
from dllm_kernels.decoder.reference import ReferenceDecoder
from dllm_kernels.dispatch import KernelError
from dllm_kernels.dispatch import explain
from dllm_kernels.dispatch import kernel
from dllm_kernels.tiles import CHUNK

KINDS: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
#: Widths that are no multiple of anything, groups of 1 to 5 query heads, tied and untied heads.
SHAPES: list[dict[str, Any]] = [
    {"hidden_size": 36, "intermediate_size": 50, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10},
    {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16},
    {"hidden_size": 40, "intermediate_size": 33, "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 8},
]
IMPLEMENTATIONS: list[Any] = [ReferenceDecoder, CpuDecoder]
BIASED: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "qwen2": {},
    "qwen3": {"attention_bias": True},
}


def network(kind: str, dtype: torch.dtype = torch.float32, seed: int = 0, **sizes: Any) -> Any:
    """A random model whose norms and biases matter."""
    config_class, model_class = KINDS[kind]
    torch.manual_seed(seed)
    fields = {"vocab_size": 71, "num_hidden_layers": 2, "max_position_embeddings": 1024, **SHAPES[0], **sizes}
    model = model_class(config_class(**fields)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1) / 2, std=0.2)
    return model.to(dtype)


def logits_of(model: Any, tokens: Tensor, positions: Tensor, seen: Tensor) -> Tensor:
    """What transformers says, [N, V]; seen bool [N, N]."""
    mask = torch.zeros(seen.shape, dtype=model.dtype).masked_fill(~seen, torch.finfo(model.dtype).min)
    with torch.inference_mode():
        found: Tensor = model(tokens[None], attention_mask=mask[None, None], position_ids=positions[None]).logits[0]
    return found


def row_of(decoder: Decoder) -> KeyValues:
    """An empty row."""
    return KeyValues(decoder.weights.shape, decoder.weights.embedding.device)


def run(decoder: Decoder, rows: Sequence[tuple[KeyValues, Tensor, Tensor, Tensor]]) -> list[Tensor]:
    """One pass: a store, tokens, positions and who sees whom, each; logits of each."""
    parts, begin = [], 0
    for store, tokens, _, seen in rows:
        store.reserve(len(tokens))
        parts.append(Part(store, slice(begin, begin + len(tokens)), seen))
        begin += len(tokens)
    hidden = decoder.forward(torch.cat([row[1] for row in rows]), torch.cat([row[2] for row in rows]), parts)
    return [decoder.logits(hidden[part.rows]) for part in parts]


def drawn(length: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 71, (length,), generator=torch.Generator().manual_seed(seed))


def blocks(begin: int, end: int, size: int = 5) -> Tensor:
    """Block-causal: bool [end - begin, end]."""
    return torch.arange(end)[None] // size <= torch.arange(begin, end)[:, None] // size


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
    for implementation in IMPLEMENTATIONS:
        decoder: Decoder = implementation(weights)
        rows = [(row_of(decoder), drawn(n, n), torch.arange(n), torch.ones(n, n).bool()) for n in (1, 17, 6)]
        found.append(torch.cat(run(decoder, rows)).float())
    assert found[0].abs().max() > 1
    torch.testing.assert_close(found[0], found[1], atol=0.15, rtol=0.1)


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
    """The fast one on CPUs in float32 and bfloat16, the plain one elsewhere, each with its reason."""
    sizes = shape_of(network("llama", **SHAPES[1]).config).sizes()
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert kernel(KERNEL, cpu, torch.bfloat16, sizes) is CpuDecoder
    assert kernel(KERNEL, cpu, torch.float16, sizes) is ReferenceDecoder
    assert kernel(KERNEL, cpu, torch.float32, sizes | {"head_dim": 10}) is ReferenceDecoder
    assert "head_dim=10" in explain(KERNEL, cpu, torch.float32, sizes | {"head_dim": 10})
    assert "cpu: runs on the cpu only, not on cuda" in explain(KERNEL, cuda, torch.float32, sizes)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run with one and with two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def walked(decoder: Decoder, tokens: Tensor, at_once: int, company: int = 0) -> Tensor:
    """Causal logits of every token, `at_once` a pass, beside `company` other rows of unequal lengths."""
    store = row_of(decoder)
    others = [row_of(decoder) for _ in range(company)]
    found = []
    for begin in range(0, len(tokens), at_once):
        part = tokens[begin : begin + at_once]
        places = torch.arange(begin, begin + len(part))
        seen = torch.arange(begin + len(part))[None] <= places[:, None]
        rows = [(store, part, places, seen)]
        for index, other in enumerate(others):
            n = 2 + 5 * index
            rows.insert(index % 2, (other, drawn(n, index), torch.arange(n), torch.ones(n, n).bool()))
        mine = next(index for index, row in enumerate(rows) if row[0] is store)
        found.append(run(decoder, rows)[mine])
        store.pend(len(part))
        store.freeze(len(part))
    return torch.cat(found)


def assert_row_invariant(decoder: Decoder, tokens: Tensor) -> None:
    """Bit-equal logits for 1, 2, 9, 16 and 25 rows a pass and all at once, alone and batched."""
    alone = walked(decoder, tokens, 1)
    for at_once, company in [(2, 0), (9, 0), (16, 0), (25, 0), (len(tokens), 0), (1, 3), (9, 4), (16, 1), (25, 2)]:
        assert torch.equal(walked(decoder, tokens, at_once, company), alone), (at_once, company)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_row_invariant(kind: str, dtype: torch.dtype, threads: int) -> None:
    """Over the boundary of a chunk of keys."""
    assert_row_invariant(CpuDecoder(take_weights(network(kind, dtype, **SHAPES[1]))), drawn(CHUNK + 12))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [SHAPES[0], SHAPES[2]], ids=["36", "40"])
def test_row_invariant_on_odd_shapes(sizes: dict[str, int], dtype: torch.dtype, threads: int) -> None:
    """Widths that no vector of the machine divides."""
    model = network("qwen3", dtype, **{**sizes, "head_dim": 24})
    assert_row_invariant(CpuDecoder(take_weights(model)), drawn(60))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_row_invariant_at_the_default_models_widths(dtype: torch.dtype, threads: int) -> None:
    """Two layers as wide as SmolLM2-135M's, where products are split over threads."""
    sizes: dict[str, Any] = {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    }
    model = network("llama", dtype, **sizes, head_dim=64, vocab_size=4096)
    assert_row_invariant(CpuDecoder(take_weights(model)), drawn(40))


def test_threads_do_not_matter() -> None:
    """One thread and two give the same bits."""
    decoder = CpuDecoder(
        take_weights(network("qwen3", torch.bfloat16, hidden_size=256, intermediate_size=768, head_dim=64))
    )
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(walked(decoder, drawn(60), 25))
    torch.set_num_threads(before)
    assert torch.equal(*found)
