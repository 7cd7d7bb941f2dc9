"""How much room stores make: never more than they say beforehand, however a row grows."""

import random

import pytest
import torch

from dllm_kernels.attention.pages import FIRST
from dllm_kernels.attention.pages import PAGE
from dllm_kernels.attention.pages import PagedRow
from dllm_kernels.attention.pages import PagePool
from dllm_kernels.decoder.compiled_store import CompiledStore
from dllm_kernels.decoder.store import KeyValues
from dllm_kernels.decoder.weights import DecoderShape

SHAPE = DecoderShape(layers=1, hidden=8, heads=1, kv_heads=1, head_dim=8, intermediate=8, vocabulary=8, eps=1e-6)
CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["plain", "compiled"])
def test_a_row_that_grows(kind: str) -> None:
    """By passes of any length, of which some are kept."""
    drawn = random.Random(1)
    for _ in range(20):
        plain = KeyValues(SHAPE, [CPU], torch.float32)
        store = plain if kind == "plain" else CompiledStore(SHAPE, torch.float32)
        most = 0
        for _ in range(30):
            count = drawn.randint(1, 120)
            store.reserve(count)
            most = max(most, store.kept + count)
            store.length += drawn.randint(0, count)
            assert most <= store.capacity <= store.room(most)


def test_rows_of_a_pool() -> None:
    """All of its pages but those that it begins with."""
    drawn, pool = random.Random(2), PagePool(1, 1, 2, torch.float32, CPU)
    rows = [PagedRow(pool) for _ in range(6)]
    for _ in range(60):
        row = drawn.choice(rows)
        row.reserve(drawn.randint(1, 400))
        row.length += drawn.randint(0, min(100, row.capacity - row.length))
        said = sum(one.room(one.capacity) for one in rows)
        assert pool.data.shape[2] * PAGE <= said + FIRST * PAGE
