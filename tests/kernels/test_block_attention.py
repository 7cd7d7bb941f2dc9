"""Block attention: the reference against torch's own attention, and the Triton kernel against the reference."""

import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.attention import KERNEL
from dllm_kernels.attention import Prefix
from dllm_kernels.attention import RowBlocks
from dllm_kernels.attention import block_attention
from dllm_kernels.attention import static_prefix
from dllm_kernels.attention.launch import TILE
from dllm_kernels.attention.launch import attend as triton_attend
from dllm_kernels.attention.launch import refuses
from dllm_kernels.attention.reference import attend as reference_attend
from dllm_kernels.dispatch import KernelError
from dllm_kernels.dispatch import explain

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SHAPES = {"heads": 6, "kv_heads": 2, "head_dim": 16, "page": 64}
Case = tuple[Tensor, Tensor, Tensor, Prefix, RowBlocks]


def paged(
    lengths: list[int],
    counts: list[int],
    *,
    heads: int = 6,
    kv_heads: int = 2,
    size: int = 16,
    dtype: torch.dtype = torch.float32,
    page: int = 64,
) -> Case:
    """Random rows whose pages lie anywhere in a pool of large numbers; three positions at the end are in no block."""
    noise = torch.Generator().manual_seed(sum(lengths) + 7 * sum(counts))
    total = sum(counts) + 3
    q, k, v = (torch.randn(total, each, size, generator=noise).to(dtype) for each in (heads, kv_heads, kv_heads))
    most = max(-(-max(lengths) // page), 1)
    pool = torch.full((2, len(lengths) * most + 2, page, kv_heads, size), 1e4, dtype=dtype)
    table = torch.randperm(len(pool[0]), generator=noise)[: len(lengths) * most].view(len(lengths), most).int()
    for row, length in enumerate(lengths):
        kept = torch.randn(2, length, kv_heads, size, generator=noise).to(dtype)
        for slot in range(length):
            pool[:, table[row, slot // page], slot % page] = kept[:, slot]
    own = torch.rand(total, max(counts), generator=noise) < 0.4
    starts = torch.tensor([0, *counts]).cumsum(0).int()
    for row, begin in enumerate(starts[:-1].tolist()):
        # Everybody sees himself, and nobody what is behind his block.
        own[begin : begin + counts[row]] |= torch.eye(max(counts), dtype=torch.bool)[: counts[row]]
    return q, k, v, Prefix(pool[0], pool[1], table, torch.tensor(lengths).int()), RowBlocks(starts, own)


def cut(case: Case, row: int, first: int, last: int) -> Case:
    """One row alone, and of its causal block only positions first to last, behind those before them."""
    q, k, v, prefix, blocks = case
    begin = int(blocks.starts[row])
    alone = slice(begin + first, begin + last)
    length = int(prefix.lengths[row])
    pool = torch.stack([prefix.keys, prefix.values])
    for slot, place in enumerate(range(begin, begin + first), start=length):
        pool[:, prefix.table[row, slot // prefix.page], slot % prefix.page] = torch.stack([k[place], v[place]])
    lengths = torch.tensor([length + first]).int()
    behind = Prefix(pool[0], pool[1], prefix.table[row : row + 1], lengths)
    own = blocks.own[alone, first:last]
    return q[alone], k[alone], v[alone], behind, RowBlocks(torch.tensor([0, last - first]).int(), own)


def causal(case: Case) -> Case:
    """The same with blocks whose positions see themselves and those before."""
    blocks = case[4]
    own = torch.zeros_like(blocks.own)
    for begin, end in zip(blocks.starts[:-1].tolist(), blocks.starts[1:].tolist(), strict=True):
        own[begin:end] = torch.ones(end - begin, own.shape[1], dtype=torch.bool).tril()
    return (*case[:4], replace(blocks, own=own))


def static_store(case: Case, capacity: int) -> Case:
    """The same prefixes, each in a store of its own whose heads lie apart."""
    q, k, v, prefix, blocks = case
    stored = torch.full((2, len(prefix.lengths), k.shape[1], capacity, k.shape[2]), 1e4, dtype=k.dtype)
    for row, length in enumerate(prefix.lengths.tolist()):
        for side, pool in enumerate((prefix.keys, prefix.values)):
            kept = pool[prefix.table[row].long()].flatten(0, 1)[:length]
            stored[side, row, :, :length] = kept.transpose(0, 1)
    keys, values = stored.transpose(2, 3)
    return q, k, v, static_prefix(keys, values, prefix.lengths), blocks


def test_equals_torchs_attention() -> None:
    """Row by row, over pages in any order, an empty block and an empty prefix among them."""
    case = paged([70, 0, 64, 130], [5, 9, 0, 1])
    q, k, v, prefix, blocks = case
    found = block_attention(*case)
    for row, length in enumerate(prefix.lengths.tolist()):
        mine = slice(int(blocks.starts[row]), int(blocks.starts[row + 1]))
        count = mine.stop - mine.start
        kept = [pool[prefix.table[row].long()].flatten(0, 1)[:length] for pool in (prefix.keys, prefix.values)]
        keys, values = (torch.cat([old, new[mine]]).transpose(0, 1) for old, new in zip(kept, (k, v), strict=True))
        mask = F.pad(blocks.own[mine, :count], (length, 0), value=True)
        wanted = F.scaled_dot_product_attention(
            q[mine].transpose(0, 1), keys, values, attn_mask=mask, enable_gqa=True
        ).transpose(0, 1)
        torch.testing.assert_close(found[mine], wanted.flatten(1), atol=1e-5, rtol=1e-5)
    assert not found[-3:].any()


def test_a_static_store_is_a_page_a_row() -> None:
    case = paged([70, 0, 64], [5, 9, 2])
    torch.testing.assert_close(block_attention(*static_store(case, 96)), block_attention(*case))


def test_who_sees_nothing_gets_zeros() -> None:
    """Padding of a captured pass; not a number would spread."""
    q, k, v, prefix, blocks = paged([0, 0], [4, 3])
    own = blocks.own.clone()
    own[2] = False
    found = reference_attend(q, k, v, prefix, replace(blocks, own=own))
    assert not found[2].any()
    assert found[:2].abs().amax(1).min() > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda q, k, v, p, b: (q, k[:-1], v, p, b), r"k is \(11, 2, 16\), but \(12, 2, 16\)"),
        (lambda q, k, v, p, b: (q, k, v[..., :8], p, b), r"v is \(12, 2, 8\)"),
        (lambda q, k, v, p, b: (q[:, :5], k, v, p, b), "5 query heads are no multiple of 2"),
        (lambda q, k, v, p, b: (q.bfloat16(), k, v, p, b), "of torch.bfloat16, torch.float32; convert"),
        (lambda q, k, v, p, b: (q, k, v, replace(p, table=p.table[:1]), b), r"prefix.table is \(1,\)"),
        (lambda q, k, v, p, b: (q, k, v, p, replace(b, starts=b.starts[1:])), r"starts is \(2,\), but \(3,\)"),
        (lambda q, k, v, p, b: (q, k, v, p, replace(b, own=b.own.int())), "compare it, so that it is torch.bool"),
        (
            lambda q, k, v, p, b: (
                q,
                k,
                v,
                replace(p, values=p.values.transpose(0, 1).contiguous().transpose(0, 1)),
                b,
            ),
            "strides of prefix.values",
        ),
        (
            lambda q, k, v, p, b: (q, k, v, replace(p, keys=_spread(p.keys), values=_spread(p.values)), b),
            "stride 2; make it dense",
        ),
        (lambda q, k, v, p, b: (q, k, v, replace(p, table=p.table.long()), b), "table is torch.int64"),
        (lambda q, k, v, p, b: (q, k, v, replace(p, lengths=p.lengths.float()), b), "lengths is torch.float32"),
        (lambda q, k, v, p, b: (q, k, v, replace(p, table=p.table + 1000), b), "pages outside"),
        (lambda q, k, v, p, b: (q, k, v, replace(p, lengths=p.lengths * 1000), b), "do not fit"),
        (lambda q, k, v, p, b: (q, k, v, replace(p, lengths=-p.lengths), b), "do not fit"),
        (lambda q, k, v, p, b: (q, k, v, p, replace(b, starts=b.starts * 2)), "ends at|none of at most"),
        (lambda q, k, v, p, b: (q, k, v, p, replace(b, starts=b.starts.flip(0))), "none of at most"),
        (lambda q, k, v, p, b: (q.to("meta"), k, v, p, b), "on cpu, meta; move them"),
    ],
)
def test_what_does_not_fit_is_refused(change: object, words: str) -> None:
    """With the shapes."""
    assert callable(change)
    case = change(*paged([70, 3], [4, 5]))
    with pytest.raises(KernelError, match=words):
        block_attention(*case)


def _spread(pool: Tensor) -> Tensor:
    return pool.repeat_interleave(2, dim=-1)[..., ::2]


def test_which_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain one on CPUs, Triton's on GPUs if its tiles fit, each with its reason."""
    monkeypatch.setattr("dllm_kernels.attention.launch.find_spec", lambda name: object())
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "triton: runs on a GPU" in explain(KERNEL, CPU, torch.float32, SHAPES)
    assert "triton: chosen" in explain(KERNEL, CUDA, torch.bfloat16, SHAPES)
    for size in (8, 48, 80):
        assert f"head_dim={size}" in str(refuses(CUDA, torch.float32, SHAPES | {"head_dim": size}))
    assert f"page={TILE + 1}" in str(refuses(CUDA, torch.float32, SHAPES | {"page": TILE + 1}))
    assert "does not take torch.float64" in str(refuses(CUDA, torch.float64, SHAPES))
    monkeypatch.setattr("dllm_kernels.attention.launch.find_spec", lambda name: None)
    assert "pip install triton" in explain(KERNEL, CUDA, torch.float32, SHAPES)


needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


@needs_triton
@pytest.mark.slow
def test_in_the_interpreter() -> None:
    """All functions called check_*, of the decoder too, in one process: Triton decides on import if it interprets."""
    files = [__file__, str(Path(__file__).with_name("test_gpu_decoder.py"))]
    command = [sys.executable, "-m", "pytest", "-o", "python_functions=check_*", "-p", "no:cacheprovider", *files]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "12 passed" in done.stdout


#: Of bfloat16: its rounding of the result, which the interpreter's cast does to the queries' products as well.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def assert_triton_is_right(case: Case) -> None:
    expected = reference_attend(*case)
    found = triton_attend(*case)
    tolerance = TOLERANCE[case[0].dtype]
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(6, 2, 16), (4, 4, 32), (5, 1, 64), (2, 1, 128)])
def check_triton_equals_the_reference(heads: int, kv_heads: int, size: int, dtype: torch.dtype) -> None:
    """Prefixes that end anywhere in a tile and a page, blocks of one to many tiles, groups of one to five."""
    for lengths, counts in (([70, 0, 64, 129], [5, 9, 0, 1]), ([31], [33]), ([32, 200], [1, 40])):
        case = paged(lengths, counts, heads=heads, kv_heads=kv_heads, size=size, dtype=dtype)
        assert_triton_is_right(case)
        assert_triton_is_right(static_store(case, 256))


def check_extreme_scores() -> None:
    """Scores of thousands, whose weights are one and zeros, and positions that see nothing."""
    q, k, v, prefix, blocks = paged([70, 0], [5, 9])
    own = blocks.own.clone()
    own[7] = False
    blocks = replace(blocks, own=own)
    assert_triton_is_right((q * 2000, k, v, prefix, blocks))
    assert_triton_is_right((q, k, v, prefix, blocks))
    assert not triton_attend(q, k, v, prefix, blocks)[7].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def check_a_query_has_the_same_bits_in_any_company(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone behind its prefix, in its block, and beside other rows.

    The interpreter's product is numpy's, whose order of summation depends on a row's place in
    the tile; here every sum goes from the first to the last.
    """

    def in_order(left: Any, right: Any, **_: Any) -> Any:
        return (left[:, :, None] * right[None]).sum(1)

    monkeypatch.setattr(numpy, "matmul", in_order)
    case = causal(paged([70, 0, 129], [27, 16, 5], dtype=dtype))
    whole = triton_attend(*case)
    for row in range(3):
        begin, count = int(case[4].starts[row]), int(case[4].starts[row + 1] - case[4].starts[row])
        for size in (1, 2, 9, 16, 25):
            for first in range(0, count, size):
                last = min(first + size, count)
                found = triton_attend(*cut(case, row, first, last))
                assert torch.equal(found, whole[begin + first : begin + last]), (row, first, last)


#: Triton's compiler needs no GPU. In a process of its own: the interpreter is chosen on import.
COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from dllm_kernels.attention.fused import attend_blocks
from dllm_kernels.attention.launch import stages

for dtype, width in (("bf16", 2), ("fp32", 4)):
    for size in (64, 256):
        types = dict.fromkeys(("q", "k", "v", "keys", "values"), "*" + dtype)
        types |= {"table": "*i32", "lengths": "*i32", "starts": "*i32", "own": "*u8", "out": "*fp32", "scale": "fp32"}
        types |= dict.fromkeys(("table_width", "own_width", "page", "page_stride", "slot_stride", "head_stride"), "i32")
        fixed = {"share": 3, "size": size, "queries": 32, "tile": 32, "interpreted": False}
        types |= dict.fromkeys(fixed, "constexpr")
        source, options = ASTSource(attend_blocks, types, fixed), {"num_stages": stages(size * width)}
        compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options)
        assert "ptx" in compiled.asm
        print(compiled.metadata.shared)
"""


@needs_triton
@pytest.mark.slow
def test_it_compiles_for_a_gpu(tmp_path: Path) -> None:
    """And a program's shared memory fits where 99 KiB are the limit."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    command = [sys.executable, "-c", COMPILE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert max(map(int, done.stdout.split())) <= 99 * 1024
