"""Folders of one test, in which nothing was measured and no rules are written."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both the cache folder and the one of settings."""
    monkeypatch.delenv("DLLM_ROUTES")
    monkeypatch.setenv("DLLM_CACHE", str(tmp_path))
    monkeypatch.setenv("DLLM_CONFIG", str(tmp_path))
    return tmp_path
