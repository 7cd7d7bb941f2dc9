"""Ctrl-C at random instants; more of it with DLLM_FUZZ_SECONDS, at others with DLLM_FUZZ_SEED."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a process sends itself signals")
def test_interrupts_of_every_mode() -> None:
    """Right answers or errors of ours, and what the process holds stays flat."""
    count, seed = 40 + 8 * int(os.environ.get("DLLM_FUZZ_SECONDS", "0")), os.environ.get("DLLM_FUZZ_SEED", "0")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.sigint", str(count), seed],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert "wrong" not in found, found["errors"]
    assert found["right"] > count
    assert found["interrupted"] > count // 8
    assert len(found["modes"]) > 20
    before, after = found["before"], found["after"]
    assert after["rows"] == before["rows"] == 0
    assert after["descriptors"] <= before["descriptors"]
    assert after["memory"] < before["memory"] + 64 * 2**20
