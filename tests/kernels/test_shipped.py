"""Libraries that come with a platform's wheel."""

from pathlib import Path

import pytest

from dllm_kernels.compiled import library
from dllm_kernels.compiled.targets import file_name


def test_a_shipped_library_comes_before_one_that_was_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of these very sources only; a folder that the user names comes before it."""
    monkeypatch.setattr(library, "SHIPPED", tmp_path)
    monkeypatch.delenv("DLLM_KERNELS", raising=False)
    name = file_name("avx2")
    (tmp_path / name.replace("-avx2-", "-avx2-0")).touch()
    assert library.place("avx2") == library.folder() / name
    (tmp_path / name).touch()
    assert library.place("avx2") == tmp_path / name
    monkeypatch.setenv("DLLM_KERNELS", str(tmp_path / "own"))
    assert library.place("avx2") == tmp_path / "own" / name
