"""`benchmarks/batches.py`: both sides decode the same, and a row says what it is about."""

from pathlib import Path
from typing import Any

import batches
from batches import Row
from batches import table


def test_both_sides_of_a_tiny_checkpoint(tmp_path: Path) -> None:
    """transformers' class and the block decoder: fewer calls of the model at once, and the same tokens."""
    load: dict[str, Any] = {"device": "cpu", "dtype": "float32"}
    found = list(batches.batches("sdar", "tiny", tmp_path, batches.Setting(count=2, tokens=4), load))
    assert [row.name for row in found] == ["batch2_tiny_sdar", "batch2_tiny_sdar_kernels"]
    for row in found:
        assert row.same == "2 of 2"
        assert row.tokens == 8
        assert row.passes < row.baseline_passes
        assert row.product_gflops > row.gflops > 0
        assert row.name in table(found)


def test_rows_about_prefixes_have_no_tokens() -> None:
    """Their cells stay empty."""
    line = table([Row("native_pass_p4096_vs_p128", 9.0, 3.0, "ms", 3.0)]).splitlines()[-1]
    assert line == "| native_pass_p4096_vs_p128 | 9.0 ms | 3.0 ms | 3.00 | | | | | | |"
    assert line.count("|") == table([]).splitlines()[0].count("|")
