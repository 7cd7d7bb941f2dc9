"""`benchmarks/serving.py` and `serving_load.py`: clients that read streams, and what is made of them."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import serving
import serving_load
from clients import Told
from clients import chat
from clients import crowd
from dllm_plugins import Model
from dllm_plugins import load_model
from dllm_plugins.serving.background import start
from gguf_bench.checkpoints import SHAPES
from gguf_bench.checkpoints import checkpoint
from servers import Server
from servers import running


@pytest.fixture(scope="module")
def tiny_place(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny checkpoint, as the load runs have it."""
    place = tmp_path_factory.mktemp("load")
    return str(checkpoint("sdar", SHAPES["tiny"], place))


@pytest.fixture(scope="module")
def model(tiny_place: str) -> Model:
    """The engine alone."""
    return load_model(tiny_place)


@pytest.fixture(scope="module")
def server(tiny_place: str) -> Iterator[Server]:
    """A server in this process."""
    with start(tiny_place) as found:
        yield Server(found.address, tiny_place, os.getpid())


def test_a_crowd_hears_what_the_server_says(server: Server) -> None:
    """All answers in the order of the requests, and errors as errors."""
    bodies = [chat(server.model, f"Say {number}.", 4 + number) for number in range(5)]
    found = crowd(server.address, [*bodies, chat("another", "Say 1.", 4)], clients=3)
    assert [told.number for told in found.told] == list(range(6))
    assert found.told[5].error.startswith("404")
    for told, body in zip(found.told, bodies, strict=False):
        assert told.text
        assert not told.error
        assert told.first is not None
        assert told.first <= told.seconds <= found.seconds
        [alone] = crowd(server.address, [body], clients=1).told
        assert alone.text == told.text


PLAN = serving_load.Plan(clients=4, seconds=1.0, leaving=0.3, kill=False)


def nobody() -> Server:
    """Is not called where nobody is killed."""
    raise AssertionError


@pytest.mark.parametrize("is_right", [True, False])
def test_load_counts_what_is_wrong(server: Server, model: Model, is_right: bool) -> None:
    """Answers like the engine's are right, others are not; whoever leaves is not counted; nothing is left behind."""
    asked = serving_load.requests("tiny", model, server.model, 6)
    expected = asked if is_right else [serving_load.Asked(each.body, each.text + "!") for each in asked]
    load = serving_load.Load(PLAN, expected, model)
    asyncio.run(load.go(server, nobody))
    load.run.held.append(serving_load.held(psutil.Process()))
    found = serving_load.row("tiny", PLAN, load.run, serving_load.rows_left(server))
    assert found.answers > 0
    assert found.wrong == (0 if is_right else found.answers)
    assert (found.failed, found.cut, found.rows_left) == (0, 0, 0)
    assert found.memory > 0
    assert serving_load.table([found]).splitlines()[-1].count("|") == serving_load.table([]).splitlines()[0].count("|")


def test_streams_cut_by_a_killed_server_are_told_apart(model: Model) -> None:
    """Those that had begun; whoever asked a dead server simply asks again."""
    load = serving_load.Load(PLAN, [], model)
    load.run.dead = True
    asked = serving_load.Asked({}, "")
    load._note(asked, Told(0, "a", 0.1, 0.2, "ReadError"), was_dead=False)
    load._note(asked, Told(0, "", None, 0.2, "ConnectError"), was_dead=True)
    load.run.dead = False
    load._note(asked, Told(0, "", None, 0.2, "500"), was_dead=False)
    assert (load.run.cut, sum(load.run.errors.values()), len(load.run.told)) == (1, 1, 1)


def test_a_comparison() -> None:
    """Ratios above 1 where ours is better."""
    ours = serving.Measured(20.0, 0.1, 100, 50, ("a", "b"))
    other = serving.Measured(10.0, 0.4, 90, 0, ("c", "d"))
    alone = {"server": ours, "slow": serving.Measured(5.0, 0.1, 90, 0, ("c", "x"))}
    row = serving.compare(8, "slow", {"server": ours, "slow": other}, alone)
    assert (row.name, row.ratio, row.first_ratio) == ("server_vs_slow", 2.0, 4.0)
    assert (row.same, row.baseline_same, row.tokens_per_pass) == ("2 of 2", "1 of 2", 2.0)
    assert serving.table([row]).splitlines()[-1].count("|") == serving.table([]).splitlines()[0].count("|")


def test_a_server_that_ends_by_itself_says_why(tmp_path: Path) -> None:
    """Instead of being waited for."""
    program = tmp_path / "server.py"
    program.write_text("import sys; sys.exit('no such model')")
    with pytest.raises(RuntimeError, match="no such model"), running([sys.executable, str(program)], "x"):
        pass
