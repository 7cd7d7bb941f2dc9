"""llama.cpp is found, checked, and silent but for its errors."""

import ctypes
import sys
from types import SimpleNamespace

import pytest

from dllm_plugins.errors import GgufError
from dllm_plugins.errors import MissingExtraError
from dllm_plugins.errors import MissingLlamaCppError
from dllm_plugins.llama_cpp import library as module
from dllm_plugins.llama_cpp.library import _loaded
from dllm_plugins.llama_cpp.library import check_functions
from dllm_plugins.llama_cpp.library import check_version
from dllm_plugins.llama_cpp.library import complaints
from dllm_plugins.llama_cpp.library import failed
from dllm_plugins.llama_cpp.library import library

pytest.importorskip("llama_cpp", reason="needs the extra gguf")


@pytest.mark.parametrize("version", ["0.3.36", "0.3.41", "0.3.36.post1"])
def test_versions_that_were_tried(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize("version", ["0.3.16", "0.4.0", "1.0", "?"])
def test_other_versions_are_refused_by_name(version: str) -> None:
    with pytest.raises(MissingLlamaCppError, match=r"pip install 'dllm-plugins\[gguf\]'") as error:
        check_version(version)
    assert version in str(error.value)


def test_a_missing_function_is_named() -> None:
    half = {name: None for name in dir(library()) if name != "llama_state_seq_set_data"}
    with pytest.raises(GgufError, match="lacks llama_state_seq_set_data"):
        check_functions(SimpleNamespace(**half))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    _loaded.cache_clear()
    try:
        with pytest.raises(MissingExtraError, match=r"pip install 'dllm-plugins\[gguf\]'"):
            library()
    finally:
        monkeypatch.undo()
        _loaded.cache_clear()
        library()


def test_a_package_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(module, "import_module", broken)
    _loaded.cache_clear()
    try:
        with pytest.raises(MissingLlamaCppError, match="libgomp"):
            library()
    finally:
        monkeypatch.undo()
        _loaded.cache_clear()
        library()


def test_errors_are_kept_and_the_rest_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    """What the package's own callback does not: it hides level 4, and prints level 3."""
    log = module._CALLBACKS[-1]
    complaints()
    for level, text in ((2, b"loading\n"), (3, b"odd\n"), (4, b"bad tensor "), (5, b"blk.0\n"), (1, b"x"), (5, b"y")):
        log(level, text, ctypes.c_void_p(0))
    assert complaints() == "bad tensor blk.0"
    assert complaints() == ""
    assert capfd.readouterr() == ("", "")


def test_what_llama_cpp_said_is_part_of_the_error() -> None:
    module._CALLBACKS[-1](4, b"no such tensor\n", ctypes.c_void_p(0))
    assert str(failed("It broke", "mend it")) == "It broke; mend it (llama.cpp: no such tensor)"
    assert str(failed("It broke", "mend it")) == "It broke; mend it"
