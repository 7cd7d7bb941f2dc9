"""Benchmarks of single passes: their layouts, what they count, tables and plots."""

import mmap
from pathlib import Path

import pytest
import torch

from block_rows import Setting
from block_rows import agreement
from block_rows import line
from dllm_plugins import Model
from dllm_plugins.kept_prefixes import KeptPrefixes
from engine_share import Parts
from engine_share import asked
from engine_share import parts_of
from growth import SHARES
from growth import point
from growth import tables
from growth_plot import draw
from memory import ROLLUP
from memory import anonymous
from memory import watched
from passes import Contestant
from passes import block
from passes import drawn
from passes import filled
from passes import medians
from passes import predict
from passes import put

MS = {"forward": 9.0, "forward/linear": 6.0, "forward/attention": 2.0, "forward/other": 1.0}
MS |= {"head": 3.0, "rules": 0.5, "engine": 0.3, "text": 0.2}


def test_the_pass_is_that_of_mode_diffusion(tiny: Model) -> None:
    """Logits at every row; the clean one says what it says alone."""
    denoiser = tiny.denoiser
    tokens = drawn(20, denoiser.spec.vocabulary)
    row = filled(denoiser, tokens)
    logits = predict(denoiser, block(denoiser, row, 7, 20, 6))()
    assert logits.shape == (6, denoiser.spec.vocabulary)
    alone = predict(denoiser, block(denoiser, row, 7, 20, 1))()
    assert torch.equal(logits[:1], alone)
    assert not torch.equal(logits[1], logits[2])
    denoiser.close_row(row)


def test_parts_of_real_passes(tiny: Model) -> None:
    """Of the asked number of rows on average, none of them a prefill, adding up to the whole."""
    tokens, kept = drawn(30, tiny.denoiser.spec.vocabulary), KeptPrefixes(100)
    for mode, rows in (("ar", 1), ("diffusion", 6)):
        parts = parts_of(tiny, tokens, mode, rows, passes=3, rounds=2, kept=kept)
        assert parts.rows == pytest.approx(rows, abs=2)
        assert parts.whole == pytest.approx(parts.model + parts.engine)
        assert min(parts.model, parts.engine) > 0


def test_options_for_numbers_of_rows() -> None:
    """The last token and open ones; drafts and a group behind each candidate."""
    assert asked("diffusion", 16) == {"block_length": 15}
    assert asked("speculative", 16) == {"draft_length": 3}
    assert asked("ar", 1) == {}
    for mode, rows in (("speculative", 15), ("ar", 2), ("diffusion", 1)):
        with pytest.raises(ValueError, match=f"{mode!r} has {rows} rows"):
            asked(mode, rows)


def test_growth_tells_all_parts(tmp_path: Path) -> None:
    """Shares add up, with and without a decoder that says what its forward is made of; the plot is the same again."""
    found = [point(prefix, rows, Parts(MS, rows)) for prefix in (128, 256) for rows in (1, 16)]
    assert list(found[0].parts) == list(SHARES)
    assert found[0].ms == pytest.approx(13.0)
    assert sum(found[0].share(name) for name in found[0].parts) == pytest.approx(100)
    undivided = point(128, 1, Parts({name: ms for name, ms in MS.items() if "/" not in name}, 1))
    assert undivided.ms == pytest.approx(13.0)
    shown = tables(found, "Here.")
    assert "| prefix | 1 row | 16 rows |" in shown
    assert "| 128 | 1 | 46.2 | 15.4 | 7.7 | 23.1 | 7.7 |" in shown
    points = [{"prefix": p.prefix, "rows": p.rows, "ms": p.ms, "parts": p.parts} for p in found]
    for name in ("a.png", "b.png"):
        draw(points, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_rows_of_comparisons() -> None:
    """Both ratios, and words about the result."""
    row = Setting(16, 256, 30, None).row("a_vs_b", 2.0, 3.0, "bfloat16", "exact")
    assert (row.ratio, row.times_baseline, row.rows, row.prefix) == (1.5, 0.6667, 16, 256)
    assert "| `a_vs_b` | 2.00 ms/pass | 3.00 | 0.667 | 16 | 256 | exact |" in line(row)
    logits = torch.eye(4)
    assert agreement(logits, logits) == "4 of 4 tokens equal, logits 0.0% apart"
    assert agreement(logits, logits.flip(0)).startswith("0 of 4")


def test_contestants_take_turns() -> None:
    """Each is made ready again after every run."""
    order: list[str] = []
    contestants = {
        name: Contestant(lambda name=name: order.append(name), lambda name=name: order.append(name.upper()))  # type: ignore[misc]
        for name in "ab"
    }
    assert medians(contestants, 2).keys() == {"a", "b"}
    assert "".join(order) == "aAaAbBbB" + "bBbBaAaA"


def test_tables_go_into_pages(tmp_path: Path) -> None:
    """Between their marks only."""
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- growth -->\nold\n<!-- end -->\nb\n<!-- other -->\nkept\n<!-- end -->\n")
    put(page, "growth", "new \\1")
    assert page.read_text() == "a\n<!-- growth -->\nnew \\1\n<!-- end -->\nb\n<!-- other -->\nkept\n<!-- end -->\n"
    with pytest.raises(ValueError, match="write <!-- memory -->"):
        put(page, "memory", "")


@pytest.mark.skipif(not ROLLUP.exists(), reason="anonymous memory is read from /proc")
def test_anonymous_memory_is_seen() -> None:
    """A tensor counts, also one that is gone again. Its memory is new: what was freed may still be the process's."""
    before = anonymous()
    with watched() as most:
        room = mmap.mmap(-1, 100_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        held = torch.frombuffer(room, dtype=torch.float32).fill_(1)
        assert anonymous() - before > 90e6
        del held
        room.close()
    assert most[0] - before > 0
