"""A soak of many callers; longer with DLLM_FUZZ_SECONDS, with other requests by DLLM_FUZZ_SEED."""

import os

import pytest

from .soak import Soak


@pytest.mark.slow
def test_many_callers_at_random() -> None:
    """Right answers or errors of ours, and what the process holds stays flat."""
    soak = Soak(int(os.environ.get("DLLM_FUZZ_SEED", "0")))
    seconds = float(os.environ.get("DLLM_FUZZ_SECONDS", "0"))
    soak.run(2, seconds / 4)
    before = soak.left()
    soak.run(6, seconds)
    after = soak.left()
    assert not soak.counts.wrong, soak.counts.wrong[:3]
    assert soak.counts.right
    assert (after.rows, after.claims) == (before.rows, before.claims) == (0, 0)
    assert after.threads <= before.threads
    assert after.descriptors <= before.descriptors
    assert after.memory < before.memory + 64 * 2**20
    assert after.kept <= soak.shared.prefixes.positions
