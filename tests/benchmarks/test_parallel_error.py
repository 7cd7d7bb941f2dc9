"""The plot of docs/samplers.md: its table has every rule, says what is measured today, and is drawn from it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dllm_plugins import plugins
from parallel_error import Point
from parallel_error import chains
from parallel_error import draw
from parallel_error import main
from parallel_error import measure
from parallel_error import settings

FOLDER = Path(__file__).parents[2] / "docs" / "img"
TABLE = json.loads((FOLDER / "parallel-error.json").read_text(encoding="utf-8"))
POINTS = [Point(**point) for point in TABLE["points"]]


def test_every_built_in_rule_is_measured_at_every_setting() -> None:
    """Told the draw's probability, and blind."""
    for name, rule in plugins.rules().items():
        for setting in settings(rule):
            mine = [p.blind for p in POINTS if p.rule == name and p.setting == setting]
            assert mine == [False, True], f"{name} {setting}: run benchmarks/parallel_error.py"


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("quota", {"steps": 3}),
        ("threshold", {"threshold": 0.6}),
        ("factor", {"factor": 1.0}),
        ("margin", {"steps": 2}),
        ("entropy_bound", {"rule_options": {"gamma": 0.6}}),
    ],
)
def test_the_table_says_what_is_measured(name: str, setting: dict[str, Any]) -> None:
    """Some of its points, measured again."""
    known = chains(TABLE["chains"])
    for blind in (False, True):
        found = measure(plugins.rules()[name], setting, known, blind=blind)
        (said,) = [p for p in POINTS if (p.rule, p.setting, p.blind) == (name, setting, blind)]
        assert found.total_variation == pytest.approx(said.total_variation, abs=2e-5)
        assert found.tokens_per_pass == pytest.approx(said.tokens_per_pass, abs=2e-4)


def test_what_the_page_says() -> None:
    """One position a pass, chosen without looking at the draw, is exact; chosen by the draw it is not."""
    single = [p for p in POINTS if p.tokens_per_pass == 1]
    exact = {p.rule for p in single if p.total_variation == 0 and not p.blind}
    assert exact == {"random", "margin", "entropy_bound"}
    slow = [p for p in POINTS if p.tokens_per_pass < 1.01 and not p.blind]
    assert {p.rule for p in slow if p.total_variation > 0.6} >= {"quota", "threshold"}
    assert all(p.total_variation == 0 for p in single if p.blind and p.rule != "credit")
    assert all(p.error < 0.01 for p in POINTS)


def test_the_plot_depends_on_the_points_only(tmp_path: Path) -> None:
    """Drawn twice it is the same file, and names every rule."""
    for name in ("one.svg", "two.svg"):
        draw(POINTS, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    shown = (FOLDER / "parallel-error.svg").read_text(encoding="utf-8")
    assert all(f">{rule}<" in shown for rule in {p.rule for p in POINTS})


def test_the_command_writes_both_files(tmp_path: Path) -> None:
    """For one rule on one chain."""
    result = CliRunner().invoke(main, ["--chains", "1", "--rule", "quota", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "1.00 tokens/pass" in result.output
    assert len(json.loads((tmp_path / "parallel-error.json").read_text(encoding="utf-8"))["points"]) == 8
    assert (tmp_path / "parallel-error.svg").stat().st_size > 1000
