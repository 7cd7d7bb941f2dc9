"""Files written by several processes at once, of which some are killed: real processes, cheap imports."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.whole import alone
from dllm_plugins.files.whole import beside
from dllm_plugins.files.whole import made_once
from dllm_plugins.files.whole import whole


def at_once(code: str, *arguments: str, count: int = 8) -> list[subprocess.CompletedProcess[str]]:
    """Run a program several times at the same time; each is told its number last."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments, str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for number in range(count)
    ]
    done = [(process, *process.communicate(timeout=120)) for process in running]
    return [subprocess.CompletedProcess(process.args, process.returncode, out, err) for process, out, err in done]


COUNT = """
import sys
from pathlib import Path
from dllm_plugins.files.whole import beside
place = Path(sys.argv[1])
for _ in range(20):
    with beside(place, wait=True) as part:
        part.write_text(str(int(place.read_text()) + 1))
"""


def test_no_change_is_lost(tmp_path: Path) -> None:
    place = tmp_path / "count"
    place.write_text("0")
    for done in at_once(COUNT, str(place), count=6):
        assert done.returncode == 0, done.stderr
    assert place.read_text() == "120"
    assert list(tmp_path.iterdir()) == [place]


MADE = """
import sys, time
from pathlib import Path
from dllm_plugins.files.whole import made_once

def make(part):
    with (Path(sys.argv[1]) / "log").open("a") as log:
        log.write("made ")
    part.write_text("half")
    time.sleep(0.1)
    part.write_text("whole")

print(made_once(Path(sys.argv[1]) / "kept", "of-this", "state-1", make).read_text())
"""


def test_one_of_several_makes_it_and_all_have_it(tmp_path: Path) -> None:
    done = at_once(MADE, str(tmp_path), count=6)
    assert [one.stdout for one in done] == ["whole\n"] * 6, done
    assert (tmp_path / "log").read_text() == "made "
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["of-this-state-1"]


KILLED = """
import os, signal, sys
from pathlib import Path
from dllm_plugins.files.whole import alone, whole
place = Path(sys.argv[1])
with alone(place), whole(place) as part:
    if sys.argv[2] == "folder":
        part.mkdir()
        (part / "half").write_text("half")
    else:
        part.write_text("half")
    part.with_name(part.name + ".more").write_text("more")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_left_is_removed(tmp_path: Path, kind: str) -> None:
    """Its lock holds nobody up, and what was there is as it was until then."""
    place = tmp_path / "of [this] name"
    place.mkdir() if kind == "folder" else place.write_text("old")
    assert [one.returncode for one in at_once(KILLED, str(place), kind, count=1)] == [-signal.SIGKILL]
    assert len(list(tmp_path.iterdir())) == 4
    assert place.is_dir() if kind == "folder" else place.read_text() == "old"
    with beside(place) as part:
        assert not part.exists()
        if kind == "folder":
            part.mkdir()
            (part / "new").write_text("new")
        else:
            part.write_text("new")
    assert (place / "new" if kind == "folder" else place).read_text() == "new"
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt])
def test_what_fails_changes_nothing(tmp_path: Path, raised: type[BaseException]) -> None:
    place = tmp_path / "place"
    place.write_text("old")
    with pytest.raises(raised), beside(place) as part:
        part.write_text("new")
        raise raised
    assert place.read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]


def test_a_folder_that_cannot_be_moved_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "old").write_text("old")
    move = Path.replace

    def fail(path: Path, target: Path) -> Path:
        if path.name.endswith(".part"):
            raise OSError("busy")
        return move(path, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="busy"), beside(place) as part:
        part.mkdir()
    assert (place / "old").read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]


def test_who_does_not_wait_is_told(tmp_path: Path) -> None:
    """Also within one process; names of their own do not meet."""
    refused = pytest.raises(CheckpointError, match=r"another process is writing .*one")
    with alone(tmp_path / "one"), alone(tmp_path / "two"), refused, beside(tmp_path / "one"):
        pytest.fail("it is locked")
    with beside(tmp_path / "one") as part:
        part.write_text("x")


def test_older_states_go_and_neighbours_stay(tmp_path: Path) -> None:
    """What was made of other things is not touched, nor what merely begins alike."""
    neighbours = {"b-1", "a2-1", ".a2-1.part", "a"}
    for name in (*neighbours, "a-0", ".a-0.part", ".a-0.part.plain", ".a-0.part.plain.part"):
        (tmp_path / name).write_text(name)
    assert made_once(tmp_path, "a", "1", lambda part: part.write_text("new")).read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == neighbours | {"a-1"}


def test_only_its_own_left_overs_are_removed(tmp_path: Path) -> None:
    for name in (".out.party", "out.part", ".out.gguf.part"):
        (tmp_path / name).write_text(name)
    with alone(tmp_path / "out"), whole(tmp_path / "out") as part:
        part.write_text("new")
    assert {path.name for path in tmp_path.iterdir()} == {".out.party", "out.part", ".out.gguf.part", "out"}
