"""The benchmark of pairs: every contestant of ours gives the target's answers, and drafts are counted."""

from pathlib import Path

import pytest

from pairs import contestants
from pairs import rows
from pairs import table

from ..pairs.conftest import drafter_folder

__all__ = ["drafter_folder"]


def test_all_answers_are_the_targets(tiny_folder: Path, drafter_folder: Path, tmp_path: Path) -> None:
    """With tiny models, without transformers."""
    found = contestants(str(tiny_folder), str(drafter_folder), 12, peers=False)
    made = rows(found, ["how?", "why is it so?"], 1, tmp_path / "rows.json", lambda _line: None)
    assert [row.name for row in made] == ["ar", "pair", "pair_4", "pair_text"]
    assert all(row.same_answers == row.answers == 2 for row in made)
    assert made[0].draft_passes == 0
    assert made[2].draft_passes > 0
    assert made[2].drafted > 0
    assert made[0].ratio == pytest.approx(1.0)
    assert "| pair_text |" in table(made)
    assert (tmp_path / "rows.json").exists()
