"""The examples of README.md and of every page in docs/ run as they are shown, page by page."""

import io
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from llm.cli import cli

from dllm_plugins.__main__ import main
from dllm_plugins.default_model.base_model import is_ready

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"(?P<mark>```+)(?P<language>[\w-]*).*")
NOT_RUN = re.compile(r"<!-- not run:(?P<reason>.*)-->")
OUTPUT = "<!-- output -->"
SHELL = ("", "bash", "console", "sh", "shell")
#: Blocks that need the default model, whose base weights `make setup` fetches.
MODEL = re.compile(
    r"\bllm (-|chat|dllm)|dllm_plugins setup|load_model|shared_model|from_pretrained|ChatDLLM|get_(async_)?model"
)
#: Blocks that need llama.cpp, which is built from source where there is a compiler.
LLAMA_CPP = re.compile(r"llama_cpp|\.gguf\b")
#: What `llm chat` is told.
TYPED = "Hello\nquit\n"


@dataclass(frozen=True)
class Block:
    """A fenced block, and the comment directly before it."""

    line: int
    language: str
    text: str
    comment: str

    @property
    def is_code(self) -> bool:
        """Whether it is an example rather than output or a file."""
        return self.language == "python" or self.language in SHELL

    @property
    def reason(self) -> str | None:
        """Why it is not run; None if it is."""
        found = NOT_RUN.fullmatch(self.comment)
        return found["reason"].strip() if found else None


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found: list[Block] = []
    lines = text.splitlines()
    comment, place = "", 0
    while place < len(lines):
        line = lines[place].strip()
        fence = FENCE.fullmatch(line)
        if fence is None:
            comment, place = line or comment, place + 1
            continue
        end = next(at for at in range(place + 1, len(lines)) if lines[at].strip() == fence["mark"])
        indent = len(lines[place]) - len(lines[place].lstrip())
        body = "".join(shown[indent:] + "\n" for shown in lines[place + 1 : end])
        found.append(Block(place + 2, fence["language"], body, comment))
        comment, place = "", end + 1
    return found


def commands(block: Block) -> list[list[str]]:
    """The commands of a shell block, each as words; lines that end in a backslash go on."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line.removeprefix("$ "), comments=True))]


def run_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Call `llm`; variables may stand before it as in a shell."""
    shown = shlex.join(words)
    with monkeypatch.context() as patch:
        while "=" in words[0]:
            patch.setenv(*words.pop(0).split("=", 1))
        programs = {("llm",): cli, ("python", "-m", "dllm_plugins"): main}
        names = [name for name in programs if tuple(words[: len(name)]) == name]
        assert names, f"only `llm` and our own program can be run, not {shown!r}; mark the block as not run, why"
        assert not {"|", ">", "<", "&&", ";"} & set(words), f"one command a line, without a shell's signs: {shown!r}"
        words = words[len(names[0]) :]
        result = CliRunner().invoke(programs[names[0]], words, input=TYPED if words[0] == "chat" else "")
    assert result.exit_code == 0, f"{shown}: {result.output}{result.exception!r}"
    return result.stdout


def run_python(block: Block, names: dict[str, Any], page: Path) -> str:
    """Execute a block; a traceback names the page's own lines."""
    stdout = io.StringIO()
    with redirect_stdout(stdout):
        exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
    return stdout.getvalue()


def run_page(page: Path, monkeypatch: pytest.MonkeyPatch) -> list[Block]:
    """Run all blocks of a page in one namespace, and compare output where the page shows it.

    :returns: the blocks that were run.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    done: list[Block] = []
    printed: str | None = None
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.comment == OUTPUT:
            assert printed is not None, f"{page.name}:{block.line}: output of a block that was not run"
            assert printed.rstrip("\n") == block.text.rstrip("\n"), f"{page.name}:{block.line}"
        printed = None
        if block.is_code and block.reason is None:
            if block.language == "python":
                printed = run_python(block, names, page)
            else:
                printed = "".join(run_command(words, monkeypatch) for words in commands(block))
            done.append(block)
    return done


def runs(page: Path, what: re.Pattern[str]) -> bool:
    """Whether a block that is run holds this."""
    found = blocks(page.read_text(encoding="utf-8"))
    return any(block.is_code and block.reason is None and what.search(block.text) for block in found)


def parameters() -> list[Any]:
    """One test a page."""
    return [
        pytest.param(page, id=page.relative_to(ROOT).as_posix(), marks=[pytest.mark.slow] if runs(page, MODEL) else [])
        for page in PAGES
    ]


@pytest.fixture(autouse=True)
def _a_user_of_their_own(llm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder, an empty llm folder, no settings, no network, nothing written for the next run."""
    kept = {"DLLM_CACHE", "DLLM_ROUTES"}
    for name in [name for name in os.environ if name.startswith("DLLM_") and name not in kept]:
        monkeypatch.delenv(name)
    assert llm_folder.exists()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # The variable is read when the module is imported, which another test may have done.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On a busy machine several threads wait for each other ten times longer than one computes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("page", parameters())
def test_examples_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block that is not marked, with warnings as errors."""
    if runs(page, LLAMA_CPP):
        pytest.importorskip("llama_cpp", reason="its examples need llama.cpp; run `make gguf`")
    if runs(page, MODEL):
        assert is_ready(), "the base model is not set up; run `make setup`"
    run_page(page, monkeypatch)


def test_blocks_that_are_not_run_say_why() -> None:
    """Nothing is left out silently; `pytest -rP` lists these blocks."""
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.reason is not None:
                assert block.reason, f"{page.name}:{block.line}: give a reason"
                assert block.is_code, f"{page.name}:{block.line}: {block.language} is never run"
                print(f"{page.relative_to(ROOT)}:{block.line}: {block.reason}")


def write(folder: Path, text: str) -> Path:
    """A page of our own."""
    page = folder / "page.md"
    page.write_text(text)
    return page


def test_later_blocks_use_earlier_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One namespace a page; other languages are left alone; shown output is compared."""
    text = "```python\none = 1\n```\n```toml\none = 2\n```\n- item\n\n  ```python\n  print(one)\n  ```\n\n"
    assert len(run_page(write(tmp_path, text + "<!-- output -->\n```text\n1\n```\n"), monkeypatch)) == 2
    with pytest.raises(AssertionError, match=r"page.md:\d+"):
        run_page(write(tmp_path, text + "<!-- output -->\n```text\n2\n```\n"), monkeypatch)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("```python\n1 / 0\n```\n", "division"),
        ("```\nllm models list --no-such-option\n```\n", "no-such-option"),
        ("```\nmake test\n```\n", "only `llm` and our own program can be run"),
        ("```sh\nllm models list | cat\n```\n", "one command a line"),
        ("<!-- not run: not now -->\n```python\n1\n```\n<!-- output -->\n```text\n1\n```\n", "was not run"),
    ],
)
def test_what_does_not_run_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    """The harness fails where a reader would."""
    with pytest.raises((AssertionError, ZeroDivisionError), match=words):
        run_page(write(tmp_path, text), monkeypatch)


def test_only_a_reason_directly_before_a_block_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text between comment and block ends the comment; a marked block is not run."""
    marked = "<!-- not run: on purpose -->\n\n```python\n1 / 0\n```\n"
    assert run_page(write(tmp_path, marked), monkeypatch) == []
    with pytest.raises(ZeroDivisionError):
        run_page(write(tmp_path, marked.replace("\n\n", "\nSome text.\n")), monkeypatch)
    assert blocks("<!-- not run: -->\n```python\n1\n```\n")[0].reason == ""
