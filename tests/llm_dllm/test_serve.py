"""`llm dllm serve`: the names are those of llm, and so is what they load."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from llm.cli import cli

from dllm_plugins.serving import run
from dllm_plugins.serving.settings import Loading
from dllm_plugins.serving.settings import ServerSettings
from llm_dllm.loading import DEFAULT


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ServerSettings]:
    """Settings that the command would have served with."""
    found = list[ServerSettings]()
    monkeypatch.setattr(run, "run_server", lambda settings, port, say: found.append(settings))
    return found


def test_models_are_those_of_llm(
    started: list[ServerSettings], llm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what the environment says of loading, which is checked before anything is served."""
    monkeypatch.setenv("DLLM_DTYPE", "float32")
    assert llm_folder.exists()
    result = CliRunner().invoke(cli, ["dllm", "serve", "--port", "0"])
    assert result.exit_code == 0, result.output
    [settings] = started
    assert settings.models == {"dllm": Loading("dllm", DEFAULT.load_options())}
    assert settings.models["dllm"].options["dtype"] == "float32"
    result = CliRunner().invoke(cli, ["dllm", "serve", "-m", "dllm", "-m", "nobody"])
    assert result.exit_code == 1
    assert "'nobody'" in result.output
    assert len(started) == 1
