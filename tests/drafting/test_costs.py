"""What passes cost: between and beyond what was measured, and the file that it is kept in."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from dllm_plugins import Model
from dllm_plugins.__main__ import main
from dllm_plugins.decoding.program import Pass
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.base import completed
from dllm_plugins.denoisers.costs import Costs
from dllm_plugins.drafting import kept
from dllm_plugins.drafting import watched
from dllm_plugins.drafting.measured import CLEAN
from dllm_plugins.drafting.measured import measure
from dllm_plugins.drafting.watched import WatchedCosts


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of one test; the file in it."""
    monkeypatch.setenv("DLLM_CACHE", str(tmp_path))
    monkeypatch.setattr(kept, "_known", {})
    return tmp_path / "pass-costs.json"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing is timed; which models were asked to be."""
    asked: list[str] = []

    def known(denoiser: object) -> Costs:
        asked.append(denoiser.form())  # type: ignore[attr-defined]
        return Costs(((1, 2.0), (4, 3.0)), ((1, 2.5), (8, 4.0)), 0.25)

    monkeypatch.setattr(kept, "measure", known)
    monkeypatch.setattr(watched, "costs_of", kept.costs_of)
    return asked


def test_lines_between_points_and_beyond_them() -> None:
    """Straight from point to point, and on like the last two; never less for more rows."""
    costs = Costs.of_clean({4: 9.8, 1: 6.8, 16: 13.4})
    assert [costs.pass_over(rows) for rows in (1, 2, 4, 10, 16)] == pytest.approx([6.8, 7.8, 9.8, 11.6, 13.4])
    assert costs.pass_over(28) == pytest.approx(17.0)
    assert costs.pass_over(1000) == pytest.approx(13.4 + 0.3 * 984)
    assert costs.pass_over(3, 7) == costs.pass_over(10)
    noisy = Costs.of_clean({1: 5.0, 2: 4.0, 4: 8.0})
    assert [noisy.pass_over(rows) for rows in (1, 2, 3, 4)] == pytest.approx([4.0, 4.0, 6.0, 8.0])
    assert Costs.of_clean({3: 2.0}).pass_over(1) == Costs.of_clean({3: 2.0}).pass_over(300) == 2.0


def test_open_rows_cost_what_was_measured_of_them() -> None:
    """One clean row and so many open ones; beside more clean rows, as much more or less than clean ones."""
    costs = Costs(((1, 4.0), (2, 5.0), (9, 12.0)), ((1, 4.5), (8, 8.0)))
    assert costs.pass_over(1, 1) == pytest.approx(4.5)
    assert costs.pass_over(1, 8) == pytest.approx(8.0)
    assert costs.pass_over(3, 2) == pytest.approx(8.0 + costs.pass_over(1, 2) - 6.0)
    assert costs.pass_over(1, 0) == 4.0


def test_a_real_model_is_measured_and_left_as_it_was(tiny: Model) -> None:
    """All points, and no row stays open."""
    before = tiny.denoiser.open_rows  # type: ignore[attr-defined]
    costs = measure(completed(tiny.denoiser))
    assert [rows for rows, _ in costs.clean] == list(CLEAN)
    assert all(taken > 0 for _, taken in (*costs.clean, *costs.open))
    assert costs.draft > 0
    assert tiny.denoiser.open_rows == before  # type: ignore[attr-defined]


def test_they_are_measured_once_and_kept(tiny: Model, cache: Path, measured: list[str]) -> None:
    """In memory and in the file; forgotten, they are measured again."""
    denoiser = completed(tiny.denoiser)
    first = kept.costs_of(denoiser)
    assert kept.costs_of(denoiser) == first
    assert len(measured) == 1
    kept._known.clear()
    assert kept.costs_of(denoiser) == first
    assert len(measured) == 1
    [(name, stored)] = kept.kept().items()
    assert stored == first
    assert measured[0] in name
    assert kept.forget()
    assert not kept.forget()
    kept.costs_of(denoiser)
    assert len(measured) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 1',
        '{"version": 99, "costs": {}}',
        '{"version": 1, "costs": []}',
        '{"version": 1, "costs": {"NAME": null}}',
        '{"version": 1, "costs": {"NAME": {"clean": [[1, "x"]], "open": [], "draft": 0}}}',
        '{"version": 1, "costs": {"NAME": {"clean": [[1, NaN]], "open": [], "draft": 0}}}',
        '{"version": 1, "costs": {"NAME": {"clean": [[1, -2]], "open": [], "draft": 0}}}',
        '{"version": 1, "costs": {"NAME": {"clean": [[5000, 2]], "open": [], "draft": 0}}}',
        '{"version": 1, "costs": {"NAME": {"clean": [], "open": [], "draft": 0}}}',
        '{"version": 1, "costs": {"NAME": {"clean": [[1, 2]], "open": [], "draft": Infinity}}}',
    ],
)
def test_a_damaged_file_is_measured_again(tiny: Model, cache: Path, measured: list[str], text: str) -> None:
    """And then it is whole, whatever of it could still be read."""
    denoiser = completed(tiny.denoiser)
    kept.costs_of(denoiser)
    [name] = kept.kept()
    other = Costs.of_clean({1: 1.0})
    kept._change("another", other)
    cache.write_text(text.replace("NAME", name))
    kept._known.clear()
    kept.costs_of(denoiser)
    assert len(measured) == 2
    assert json.loads(cache.read_text())["version"] == kept.VERSION
    assert set(kept.kept()) == {name}


def test_where_nothing_can_be_written_it_is_measured_all_the_same(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: list[str]
) -> None:
    """A file where the cache folder should be."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DLLM_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(kept, "_known", {})
    denoiser = completed(tiny.denoiser)
    assert kept.costs_of(denoiser) == kept.costs_of(denoiser)
    assert len(measured) == 1


def _passes(rows: int, *, noisy: bool = False) -> list[Pass]:
    return [Pass((Segment(0, [1] * rows, range(rows), noisy=noisy),))]


def test_figures_of_a_busy_moment_are_measured_again(tiny: Model, cache: Path, measured: list[str]) -> None:
    """Passes much faster than what is kept forget it, in the file too; slower ones, and those that draft, do not."""
    denoiser = completed(tiny.denoiser)
    watching = WatchedCosts(denoiser)
    watching.note(_passes(1), 0.0001)
    watching()
    kept._change("another", Costs.of_clean({1: 1.0}))
    for passes, seconds in (
        (_passes(1), 0.0019),
        (_passes(4), 0.1),
        (_passes(2, noisy=True), 0.0001),
        (_passes(9), 1e-6),
    ):
        for _ in range(40):
            watching.note(passes, seconds)
    assert len(kept.kept()) == 2
    for again in (2, 3, 4, 4):
        for _ in range(40):
            watching.note(_passes(1), 0.001)
        assert len(kept.kept()) == (1 if again > len(measured) else 2)
        watching()
        assert len(measured) == again


def test_the_command_shows_and_forgets(tiny: Model, cache: Path, measured: list[str]) -> None:
    """What is kept is shown, also by `info`; `--reset` removes the file."""
    assert "not measured" in CliRunner().invoke(main, ["info"]).stdout
    kept.costs_of(completed(tiny.denoiser))
    shown = CliRunner().invoke(main, ["costs"]).stdout
    assert measured[0] in shown
    assert "1 row 2.0 ms, 4 rows 3.0 ms" in shown
    assert "0.25 ms" in shown
    assert "4 rows 3.0 ms" in CliRunner().invoke(main, ["info"]).stdout
    assert "forgotten" in CliRunner().invoke(main, ["costs", "--reset"]).stdout
    assert not cache.exists()
    assert "nothing was kept" in CliRunner().invoke(main, ["costs", "--reset"]).stdout
