"""The command as a process of its own: it says where it is, answers, and ends by a signal."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from dllm_plugins.serving.settings import Loading

from .asking import CHAT
from .asking import body


@pytest.mark.slow
def test_it_serves_until_a_signal_ends_it(loading: Loading, tmp_path: Path) -> None:
    """What runs is finished first; whoever comes later finds nobody."""
    command = [sys.executable, "-m", "dllm_plugins", "serve", "--port", "0"]
    for name, value in loading.options.items():
        command += ["--load", name, value]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "DLLM_API_KEY": "k", "DLLM_CACHE": str(tmp_path)}
    with (tmp_path / "stdout").open("wb") as stdout:
        process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, env=environment, text=True)
    assert process.stderr is not None
    try:
        first = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", first)
        assert found is not None, first + process.stderr.read()
        assert [*tmp_path.glob("server/*.sock")]
        headers = {"Authorization": "Bearer k"}
        with httpx.Client(base_url=found[0], headers=headers, timeout=120) as client:
            asked = body(stream=True) | {"model": "dllm"}
            with client.stream("POST", CHAT, json=asked) as answer:
                lines = answer.iter_lines()
                next(lines)
                process.send_signal(signal.SIGTERM)
                assert [*lines][-2] == "data: [DONE]"
        said = process.stderr.read()
        assert "stopped: every answer was finished" in said
        assert "Traceback" not in said
        assert process.wait(60) in (0, -signal.SIGTERM)
        assert not [*tmp_path.glob("server/*.sock")]
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{found[0]}/health")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_port_that_is_taken() -> None:
    """Is named, in one line."""
    from click.testing import CliRunner

    from dllm_plugins.__main__ import main
    from dllm_plugins.serving.run import listening_at

    taken = listening_at("127.0.0.1", 0)
    try:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(main, ["serve", "--port", str(port)])
        assert result.exit_code == 1
        assert f"--port {port}" in result.output
    finally:
        taken.close()
