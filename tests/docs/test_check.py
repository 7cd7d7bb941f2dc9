"""What docs/check.py finds on a page."""

from pathlib import Path

import pytest

import check

TIMES = "| mode | ms/token |\n|---|---|\n| ar | 6.8 |\n"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(check, "ROOT", tmp_path)
    return tmp_path / "page.md"


def test_times_copied_by_hand_are_found(page: Path) -> None:
    """Also behind an example's output; not what a benchmark put there."""
    page.write_text(f"<!-- output -->\n{TIMES}\n<!-- name -->\n{TIMES}<!-- end -->\n")
    assert check.times_of_nowhere(page) == ["page.md: times that no benchmark wrote: | mode | ms/token |"]
    page.write_text(f"<!-- name -->\n{TIMES}<!-- end -->\n")
    assert check.times_of_nowhere(page) == []


def test_a_table_stands_on_one_page(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = page.with_name("other.md")
    for each in (page, other):
        each.write_text(f"<!-- name -->\n{TIMES}<!-- end -->\n<!-- output -->\n")
    monkeypatch.setattr(check, "PAGES", [page, other])
    assert check.doubled_tables() == ["two pages hold the table 'name'; link from one to the other"]
