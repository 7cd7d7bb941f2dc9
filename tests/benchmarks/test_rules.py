"""The sweep finds what is registered, measures it against slow decoding, and draws the same bytes every time."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.training.blocks.recipe import BlockRecipe
from dllm_plugins.training.blocks.train import BlockRun
from rules import agreement
from rules import run
from rules import sudoku
from rules_plot import draw
from rules_report import Point
from rules_report import scores
from rules_report import summary
from rules_report import table
from sweep import DEFAULTS
from sweep import KNOBS
from sweep import OWN
from sweep import Contestant
from sweep import coarse
from sweep import contestants
from sweep import fine
from sweep import heated
from sweep import of_rule
from sweep import ruled_mode


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was hardly trained."""
    place = tmp_path_factory.mktemp("run")
    BlockRun(place, BlockRecipe(steps=2, batch=8, width=32, inner=64, layers=2, heads=2)).train()
    return place / "model"


def test_agreement() -> None:
    """Place by place; what only one answer has counts against it."""
    assert agreement([[1, 2, 3]], [[1, 5, 3]]) == pytest.approx(2 / 3)
    assert agreement([[1, 2], [4]], [[1, 2, 3], [4]]) == pytest.approx(3 / 4)


def test_every_rule_revocation_and_sampler_takes_part(folder: Path) -> None:
    """What is registered and fits is swept, and the engine takes every setting in, the passes of `steps` too."""
    task = sudoku(folder, 1)
    spec, engine = task.model.denoiser.spec, task.model.engine()
    fitting, refused = contestants(spec, drawn=True)
    for item in fitting:
        config = SamplingConfig(max_new_tokens=task.tokens, **item.options)
        assert engine.admit(Request(task.encode(task.prompts[0]), config)) is not None, item.name
    methods = {item.method for item in fitting}
    assert not refused
    assert methods >= set(plugins.rules())
    assert methods >= {f"mode {mode}" for mode in spec.modes if mode not in ("diffusion", "blocks", "flow", "remdm")}
    assert ruled_mode(spec) == "blocks"
    assert "mode sdar" in methods
    assert methods >= {f"revoke {name}" for name in plugins.revocations()}
    assert len({item.name for item in fitting}) == len(fitting)
    greedy, _ = contestants(spec, drawn=False)
    assert {item.name for item in fitting} - {item.name for item in greedy} >= {"slow, temperature 1"}


def test_a_new_rule_is_swept_by_the_names_of_its_parameters() -> None:
    """At its defaults, and at the tables' values of what it says it has."""

    class Rule:
        name = "new"
        options = frozenset({"threshold", "unheard_of"})

    found = of_rule(Rule(), "blocks")
    assert [item.setting for item in found] == [DEFAULTS, *(f"threshold={value}" for value in KNOBS["threshold"])]
    assert found[1].options == {"mode": "blocks", "rule": "new", "threshold": KNOBS["threshold"][0]}


def test_fewer_values_for_costly_models() -> None:
    """Every other one, the first among them."""
    assert coarse("new", {"steps", "x"}) == fine("new", {"steps", "x"})[::2] == [("steps", 8), ("steps", 2)]


def test_temperatures() -> None:
    """Samplers of a process draw; slow decoding is there with and without; all others are greedy."""
    assert [item.options for item in heated(Contestant("threshold", "", {"rule": "threshold"}))] == [
        {"rule": "threshold"}
    ]
    assert [item.method for item in heated(Contestant("slow", ""))] == ["slow", "slow, temperature 1"]
    assert [item.options for item in heated(Contestant("mode flow", "", {"mode": "flow"}))] == [
        {"mode": "flow", "temperature": 1.0}
    ]


def test_the_table_of_exceptions_names_parameters_that_exist() -> None:
    """A name that is gone would silently sweep nothing."""
    registered: dict[str, set[str]] = {}
    for rule in plugins.rules().values():
        own = set(rule.settings.model_fields) if hasattr(rule, "settings") else set()
        registered[rule.name] = own | set(rule.options)
    for revocation in plugins.revocations().values():
        registered[revocation.name] = set(revocation.settings.model_fields)
    for mode, sampler in plugins.modes().items():
        registered.setdefault(mode, set(sampler.settings.model_fields))
    assert not [key for key in OWN if key[1] not in registered.get(key[0], set())]


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    """A sweep over two puzzles."""
    *_, last = run(replace(sudoku(folder, 2), timed=1, tried=coarse), rounds=1)
    return last


@pytest.mark.slow
def test_figures(result: dict[str, Any]) -> None:
    """Slow decoding agrees with itself at one token a pass; four cells a pass take two passes a block."""
    points = {(item["method"], item["setting"]): item for item in result["points"]}
    slow = points["slow", ""]
    assert (slow["agreement"], slow["same"], slow["passes"], slow["tokens_per_pass"]) == (100, 100, 16, 1)
    assert points["quota", "steps=2"]["passes"] == 4
    assert points["quota", "steps=8"]["agreement"] == 100
    assert all(item["tokens_per_second"] > 0 for item in points.values())


def test_the_plot_is_the_same_every_time(result: dict[str, Any], tmp_path: Path) -> None:
    """Same results, same bytes; every method is in it."""
    again = json.loads(json.dumps({"sudoku-4x4": result}))
    draw({"sudoku-4x4": result}, tmp_path / "one.svg")
    draw(again, tmp_path / "two.svg")
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn == (tmp_path / "two.svg").read_text()
    for item in result["points"]:
        assert item["method"] in drawn
    assert "Pareto front" in drawn


def test_the_page_shows_what_was_measured() -> None:
    """Its tables are those of the JSON beside its plot, and the plot shows every method."""
    docs = Path(__file__).parents[2] / "docs"
    page, plot = (docs / name for name in ("rules-benchmark.md", "img/rules-pareto.svg"))
    for result in json.loads((docs / "img" / "rules-pareto.json").read_text())["models"].values():
        assert summary(result) in page.read_text()
        assert all(item["method"] in plot.read_text() for item in result["points"])


def test_scores_begin_with_slow_decoding() -> None:
    """A method's curve starts at one token a pass, so that only what it adds is compared."""
    shared = {"agreement": 0.0, "same": 0.0, "passes": 1.0, "tokens_per_second": 1.0}
    points = [
        Point("slow", "", quality=90, tokens_per_pass=1, **shared),
        Point("good", "a", quality=90, tokens_per_pass=3, **shared),
        Point("bad", "a", quality=50, tokens_per_pass=4, **shared),
    ]
    assert scores(points) == {"good": 270, "slow": 90, "bad": 90}
    text = table("x", {"quality": "q", "answers": 1, "tokens": 1, "aup": {}, "points": result_of(points)})
    assert [line.endswith("| yes |") for line in text.splitlines()[4:7]] == [False, True, True]
    lines = summary({"aup": scores(points), "points": result_of(points)}).splitlines()
    assert lines[2:] == [
        "| good | 270.0 | a | 90.0 | 3.00 | 1 |",
        "| slow | 90.0 | - | 90.0 | 1.00 | 1 |",
        "| bad | 90.0 | none | | | |",
    ]


def result_of(points: list[Point]) -> list[dict[str, Any]]:
    """Points as JSON holds them."""
    return [{name: getattr(item, name) for name in Point.__slots__} for item in points]
