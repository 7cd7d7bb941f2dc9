"""What a newcomer reads who types a command without its arguments."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dllm_kernels.compiled import library
from dllm_kernels.compiled.targets import file_name
from dllm_plugins import DllmError
from dllm_plugins import base_folder
from dllm_plugins.__main__ import CHECKOUT
from dllm_plugins.__main__ import main
from dllm_plugins.commands import info as about
from dllm_plugins.commands.setup import build_kernels
from dllm_plugins.files.progress import quiet
from llm_dllm.group import dllm


@pytest.mark.parametrize("group", [main, dllm], ids=["python -m dllm_plugins", "llm dllm"])
def test_lists_of_commands_hold_whole_sentences(group: click.Group) -> None:
    """Each command has a line that is not cut off, and more to say of itself."""
    listed = CliRunner().invoke(group, ["--help"], terminal_width=80).output
    commands = listed.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in commands] == sorted(group.list_commands(click.Context(group)))
    for line in commands:
        assert line.endswith("."), line
        assert not line.endswith(".."), line


@pytest.mark.parametrize("name", CHECKOUT)
def test_what_wheels_lack_is_said_to_be_in_a_checkout(name: str) -> None:
    """Whatever it was given, and where the commands are listed."""
    found = CliRunner().invoke(main, [name, "--steps", "3"])
    assert found.exit_code == 2
    assert f"python -m dllm_plugins.{name}" in found.output
    assert "checkout" in found.output
    assert f"dllm_plugins.{name}" in CliRunner().invoke(main, ["--help"]).output


def test_hosts_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is listed with what installs it."""
    monkeypatch.setattr(about, "has", lambda module: module != "langchain_core")
    [hosts] = [line for line in CliRunner().invoke(main, ["info"]).output.splitlines() if line.startswith("hosts")]
    assert "langchain (not installed: pip install 'dllm-plugins[langchain]')" in hosts
    assert "llm (llm_dllm)" in hosts


def test_the_base_folder_before_setup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What other libraries would load says how it is fetched, in place of a folder that is not there."""
    monkeypatch.setenv("DLLM_CACHE", str(tmp_path))
    with pytest.raises(DllmError, match="run `python -m dllm_plugins setup`"):
        base_folder()


def test_setup_names_the_folder_that_a_platform_s_wheel_brought(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where kernels came with the wheel, nothing is built, and theirs is the folder."""
    monkeypatch.delenv("DLLM_KERNELS", raising=False)
    monkeypatch.setattr(library, "SHIPPED", tmp_path)
    monkeypatch.setattr(library, "best_target", lambda: "avx2")
    monkeypatch.setattr(library, "why_not", lambda: None)
    (tmp_path / file_name("avx2")).touch()
    assert build_kernels(quiet) == f"The compiled kernels for avx2 are ready in {tmp_path}."
