"""Files that others wrote: what is none, too large or too deep is refused before it is opened or used."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.files.reading import MAX_DEPTH
from dllm_plugins.files.reading import read_json
from dllm_plugins.files.reading import read_object
from dllm_plugins.files.reading import reading


def _socket(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(place))


#: Opening the first would wait for ever, reading the second never end.
NO_FILES: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a device": lambda place: place.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
    "a socket": _socket,
    "No such file": lambda place: place.symlink_to(place.with_name("nowhere")),
    "Too many levels": lambda place: place.symlink_to(place),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_only_regular_files_are_opened(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else stands there is named."""
    monkeypatch.chdir(tmp_path)  # A socket's path must be short.
    place = Path("config.json")
    NO_FILES[kind](place)
    with pytest.raises(CheckpointError, match=rf"config.json: .*{kind}.*; download"):
        read_json(place)


def test_a_link_to_a_file_is_one(tmp_path: Path) -> None:
    """The hub's cache is made of them."""
    (tmp_path / "blob").write_text('{"a": 1}')
    (tmp_path / "config.json").symlink_to("blob")
    assert read_object(tmp_path / "config.json") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "no JSON"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "no JSON"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested more than"),
        ("", "no JSON"),
        ("9" * 5000, "no JSON"),
        ('"\udcff"', "decode"),
    ],
)
def test_texts_that_are_no_usable_json(tmp_path: Path, text: str, said: str) -> None:
    """Deep nesting included, which Python's parser does not survive."""
    place = tmp_path / "config.json"
    place.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=said):
        read_json(place)


@pytest.mark.parametrize("text", ["null", "[]", "3", '"x"'])
def test_json_of_another_kind(tmp_path: Path, text: str) -> None:
    """An object is needed."""
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="where a JSON object is needed"):
        read_object(tmp_path / "config.json")


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    """It is not read at all: nothing but holes would be gigabytes of zeros."""
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match="1099511627776 bytes"):
        read_json(tmp_path / "config.json")


class PanicException(BaseException):
    """Named as that of libraries in Rust, which is no Exception either."""


@pytest.mark.parametrize(
    "raised", [KeyError("x"), RecursionError("deep"), PanicException("panic"), MemoryError("7 PiB")]
)
def test_the_border_makes_one_error_of_all(raised: BaseException) -> None:
    """Its cause is kept, and where it happened is said."""
    said = f"the/folder .{type(raised).__name__}: .*; .*do this"
    with pytest.raises(CheckpointError, match=said) as caught, reading("the/folder", "do this"):
        raise raised
    assert caught.value.__cause__ is raised
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), SystemExit(1), GeneratorExit(), OptionError("ours")])
def test_what_passes_the_border(raised: BaseException) -> None:
    """Interrupts, and our own errors."""
    with pytest.raises(type(raised)) as caught, reading("the/folder"):
        raise raised
    assert caught.value is raised
