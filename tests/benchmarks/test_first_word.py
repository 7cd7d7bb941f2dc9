"""What a process costs from its start to its end, and how two are compared."""

import subprocess
import sys
from pathlib import Path

import pytest

import first_word
from first_word import Command
from first_word import Spent


def test_processes_are_measured_from_outside() -> None:
    """Seconds that pass, seconds of the processor, and memory: each of its own process."""
    idle = first_word.run(Command([sys.executable, "-S", "-c", "import time; time.sleep(0.3)"]))
    full = first_word.run(Command([sys.executable, "-S", "-c", "b = bytearray(96 << 20)"]))
    assert idle.seconds >= 0.3 > idle.processor
    assert full.memory > idle.memory + 90


def test_a_process_that_fails_is_an_error() -> None:
    """Its time says nothing."""
    with pytest.raises(subprocess.CalledProcessError, match="status 3"):
        first_word.run(Command([sys.executable, "-S", "-c", "raise SystemExit(3)"]))


def test_the_environment_of_a_checkout(tmp_path: Path) -> None:
    """Its packages, and a cache of its own where it has one."""
    code = "import os; assert os.environ['DLLM_CACHE'] == 'here' and os.environ['PYTHONPATH'].count('adapters') == 1"
    first_word.run(Command([sys.executable, "-S", "-c", code], first_word.environment(tmp_path, Path("here"))))


def test_rows_say_how_much_less_we_take() -> None:
    """Medians of three turns, and the baseline's over ours."""
    ours = first_word._median([Spent(2.0, 1.0, 100.0), Spent(4.0, 9.0, 100.0), Spent(2.5, 2.0, 120.0)])
    assert ours == (2.5, 2.0, 100.0)
    row = first_word._row("a_vs_b", ours, Spent(5.0, 6.0, 250.0))
    assert (row.ours, row.baseline, row.ratio) == (2.5, 5.0, 2.0)
    assert (row.processor_ratio, row.memory_ratio) == (3.0, 2.5)
    assert "| a_vs_b | 2.50 s | 5.00 s | 2.00 | 2.00 s | 6.00 s | 3.00 |" in first_word.start_table([row])
