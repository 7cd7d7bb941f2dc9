"""A short run of the fuzzer; `make fuzz` goes on for longer."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("fuzzer", ["reading", "default_model"])
def test_damaged_checkpoints_are_errors_of_ours_or_load(fuzzer: str) -> None:
    """In a process of its own, whose memory is bounded and which a crash or a hang would end."""
    command = [sys.executable, "-m", f"tests.fuzz.{fuzzer}"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr}\n{done.stdout}"
    # All kinds had a turn, and not all of what they damaged was refused, nor all taken.
    assert "CheckpointError" in done.stdout
    assert "loaded" in done.stdout
