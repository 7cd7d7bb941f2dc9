"""Golden cases in archives: all of them are there, and what is missing or damaged is an error, never a smaller test."""

import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

from dllm_plugins.conformance.archives import OWN
from dllm_plugins.conformance.archives import SUMS
from dllm_plugins.conformance.archives import unpacked
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.case import find_cases
from dllm_plugins.errors import CheckpointError

from ..golden.cases import CLONED
from ..golden.cases import FOLDERS
from . import test_conformance

#: Settings and recorded logits of each case.
CHECKS = {
    "a2d_qwen3": (11, 3),
    "bert_chat": (6, 4),
    "diffusion_gemma": (7, 3),
    "dream": (7, 4),
    "dreamon": (6, 3),
    "fastdllm_factor": (12, 3),
    "fastdllm_v1": (18, 3),
    "fastdllm_v2": (10, 3),
    "illada": (3, 3),
    "llada2_0": (8, 3),
    "llada2_1": (8, 3),
    "llada2_2_indel": (6, 3),
    "llada_dense": (12, 4),
    "llada_moe": (5, 3),
    "nemotron_labs": (14, 4),
    "open_dcoder": (9, 3),
    "rnd1": (6, 3),
    "sdar": (8, 3),
    "sdar_moe": (6, 3),
    "stable_diffcoder": (6, 3),
    "wedlm_qwen2": (9, 4),
    "wedlm_qwen3": (9, 4),
}
SMALL = "stable_diffcoder"


def test_every_check_is_here() -> None:
    """Case by case, so that no parity is claimed of less data than there was."""
    found: dict[str, tuple[int, int]] = {}
    for name, folder in CLONED.items():
        with safe_open(folder / "logits.safetensors", "pt") as logits:
            names = logits.keys()
        found[name] = len(Case(folder).settings), sum(key.endswith(".logits") for key in names)
    assert found == CHECKS
    assert (sum(settings for settings, _ in CHECKS.values()), sum(logits for _, logits in CHECKS.values())) == (186, 72)


def test_every_check_is_collected() -> None:
    """And all of those elsewhere, where `DLLM_ORACLE` names a folder."""
    assert FOLDERS.keys() >= CHECKS.keys()
    assert test_conformance.CASES.keys() == FOLDERS.keys()
    everything = [(name, setting.name) for name, folder in FOLDERS.items() for setting in Case(folder).settings]
    collected = [str(parameters.id) for parameters in test_conformance.SETTINGS]
    assert sorted(collected) == sorted(f"{name}-{setting}" for name, setting in everything)
    if not os.environ.get("DLLM_ORACLE"):
        assert len(collected) == 186


def test_a_folder_that_is_named_holds_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not go on with fewer cases where `DLLM_ORACLE` leads nowhere."""
    for place in (tmp_path, tmp_path / "nowhere"):
        monkeypatch.setenv("DLLM_ORACLE", str(place))
        with pytest.raises(CheckpointError, match=f"{place} has no case.json"):
            runpy.run_path(str(OWN / "cases.py"))


def test_the_read_me_says_where_they_are_from() -> None:
    """Case by case: the repositories, and the commits where there are any."""
    rows = {row.split("`")[1]: row for row in (OWN / "README.md").read_text().splitlines() if row.startswith("| `")}
    assert rows.keys() == CLONED.keys()
    for name, folder in CLONED.items():
        reference = Case(folder).about["reference"]
        for part in [reference] if "repo" in reference else reference.values():
            repository = part["repo"].split(" (")[0].removeprefix("github.com/").removeprefix("huggingface.co/")
            assert all(word in rows[name] for word in repository.split("; ")[-1].removeprefix("github.com/").split("/"))
            assert re.fullmatch("[0-9a-f]{40}", part.get("commit", "")) is None or part["commit"][:7] in rows[name]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one case, and an empty cache."""
    monkeypatch.setenv("DLLM_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "golden"
    place.mkdir()
    shutil.copy(OWN / f"{SMALL}.tar.xz", place)
    lines = [line for line in (OWN / SUMS).read_text().splitlines() if f"  {SMALL}/" in line]
    (place / SUMS).write_text("\n".join(lines) + "\n")
    return place


def test_unpacked_as_packed(folder: Path, tmp_path: Path) -> None:
    """Every file, and no other; folders beside ours are untouched."""
    (place,) = unpacked(folder)
    assert place.is_relative_to(tmp_path / "cache" / "golden")
    files = {path.relative_to(place.parent) for path in place.rglob("*") if path.is_file()}
    sums = {line[66:]: line[:64] for line in (folder / SUMS).read_text().splitlines()}
    assert {str(path) for path in files} == sums.keys()
    for path in files:
        assert hashlib.sha256((place.parent / path).read_bytes()).hexdigest() == sums[path.as_posix()]
    assert [case.folder for case in find_cases([folder])] == [place]


def test_what_was_changed_since_is_unpacked_again(folder: Path) -> None:
    """An edited file, and one that somebody's broom took; what is whole is left alone."""
    (place,) = unpacked(folder)
    whole = (place / "case.json").read_bytes()
    before = (place / "case.json").stat().st_ino
    assert unpacked(folder) == [place]
    assert (place / "case.json").stat().st_ino == before
    (place / "case.json").write_bytes(whole.replace(b"1", b"2", 1))
    (place / "checkpoint" / "config.json").unlink()
    assert unpacked(folder) == [place]
    assert (place / "case.json").read_bytes() == whole
    assert (place / "checkpoint" / "config.json").exists()


def cut(folder: Path) -> None:
    """Half an archive, as of a download that broke off."""
    archive = folder / f"{SMALL}.tar.xz"
    archive.write_bytes(archive.read_bytes()[:20_000])


def flip(folder: Path) -> None:
    """One bit of it."""
    archive = folder / f"{SMALL}.tar.xz"
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)


def pointer(folder: Path) -> None:
    """What stands in a clone whose large files were not fetched."""
    (folder / f"{SMALL}.tar.xz").write_text("version https://git-lfs.github.com/spec/v1\n")


def other(folder: Path) -> None:
    """Another case's archive by this name."""
    shutil.copy(OWN / "illada.tar.xz", folder / f"{SMALL}.tar.xz")


def changed(folder: Path) -> None:
    """Data that the list does not know."""
    lines = (folder / SUMS).read_text().splitlines()
    (folder / SUMS).write_text("\n".join([f"{'0' * 64}{lines[0][64:]}", *lines[1:]]))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "cannot unpack"),
        (flip, "cannot unpack|is not what SHA256SUMS"),
        (pointer, "cannot unpack"),
        (other, f"{SMALL}/.* not found"),
        (changed, "case.json in .* is not what SHA256SUMS"),
        (lambda folder: (folder / f"{SMALL}.tar.xz").unlink(), f"without checksums.*{SMALL}"),
        (lambda folder: shutil.copy(OWN / "illada.tar.xz", folder), "without checksums.*illada"),
        (lambda folder: (folder / SUMS).unlink(), "SHA256SUMS.*No such file"),
        (lambda folder: (folder / SUMS).write_text(""), "names no case"),
        (lambda folder: (folder / SUMS).write_text("0  ../x/case.json"), "names no file of a case"),
    ],
)
def test_damage_is_an_error(folder: Path, damage: Callable[[Path], object], words: str) -> None:
    """Which names the place, and leaves nothing that would pass for a case."""
    damage(folder)
    with pytest.raises(CheckpointError, match=words):
        find_cases([folder])
    assert not list((folder.parent / "cache").rglob("case.json"))


def test_processes_unpack_at_once(folder: Path) -> None:
    """As the workers of a test run do: each has all of it, and nothing is left beside."""
    program = "import sys, pathlib, dllm_plugins.conformance.archives as a; a.unpacked(pathlib.Path(sys.argv[1]))"
    running = [subprocess.Popen([sys.executable, "-c", program, str(folder)]) for _ in range(3)]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    (place,) = unpacked(folder)
    assert [path.name for path in place.parent.iterdir()] == [SMALL]


def test_a_cache_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    """Says what to set."""
    (tmp_path / "cache").write_text("")
    with pytest.raises(CheckpointError, match="DLLM_CACHE"):
        unpacked(folder)
