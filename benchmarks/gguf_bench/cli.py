"""llama.cpp's own diffusion example, llama-diffusion-cli, run as a program.

Read in `examples/diffusion` of llama.cpp 0c1e57098, the source inside llama-cpp-python 0.3.36:

- The sequence is as long as the physical batch (`-ub`); every pass forwards and scores all of it.
- `--temp 0` alone does not mean greedy: it leaves the temperature out, and tokens are drawn at
  temperature 1 from the 40 likeliest. With `--top-k 1` they are the likeliest ones, but every
  confidence is then 1, and ties are committed from left to right.
- In the block schedule it counts the prompt's length as blocks too. Those behind the end cost one
  pass each, and the steps asked for are spread over them.
- A prompt is always formatted as a chat, by the file's own template.
- A thread of its own prints; what it has not printed when the program ends is lost, on a busy
  machine the answer and the times. Then the program is run again.
"""

import re
import subprocess
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path

from dllm_plugins.gguf.header import read_header
from gguf_bench.vocabulary import TEMPLATE
from gguf_bench.vocabulary import Vocabulary

#: What to do where there is no program.
MISSING = (
    "no llama-diffusion-cli; build the target of that name from llama.cpp's source at commit 0c1e57098, "
    "which the source archive of llama-cpp-python 0.3.36 on PyPI holds under vendor/llama.cpp, "
    "and give the program as --diffusion-cli PATH"
)
_END = re.compile(r"total time: ([\d.]+)ms, time per step: [\d.]+ms, sampling time per step: ([\d.]+)ms\n\n(.*)\n")
_STEP = "diffusion step: "
#: Runs of which one must print all.
TRIALS = 5


class CliError(Exception):
    """Raised when the program failed or said something unexpected; the text has the end of what it said."""


@dataclass(frozen=True, slots=True)
class Task:
    """What both sides do.

    :param prompt: ids, words of the vocabulary.
    :param new: tokens to generate.
    :param block: positions denoised together.
    :param steps: passes over a block.
    """

    prompt: tuple[int, ...]
    new: int
    block: int
    steps: int

    @property
    def passes(self) -> int:
        """Passes that commit tokens."""
        return self.new // self.block * self.steps

    @property
    def asked(self) -> int:
        """Steps to ask the program for: it counts the prompt's blocks, too."""
        return self.length // self.block * self.steps

    @property
    def length(self) -> int:
        """Prompt and answer."""
        return len(self.prompt) + self.new

    def __post_init__(self) -> None:
        """Refuse what the program would abort on.

        :raises ValueError: naming the numbers.
        """
        if self.new % self.block or self.length % self.block:
            raise ValueError(f"{len(self.prompt)} and {self.new} tokens are not whole blocks of {self.block}")


@dataclass(frozen=True, slots=True)
class Said:
    """What the program gave.

    :param tokens: the new ids.
    :param passes: forwards, with those that commit nothing.
    :param seconds: of generation, as it measures them: without loading.
    :param sampling: seconds of them outside the model.
    """

    tokens: tuple[int, ...]
    passes: int
    seconds: float
    sampling: float


def say_prompt_only(model: Path) -> None:
    """Replace the chat template in a file by one that says the message and nothing else, as long as the old one.

    :raises ValueError: if that is too short to hold it.
    """
    old = str(read_header(model).metadata["tokenizer.chat_template"]).encode()
    new = TEMPLATE.encode()
    if old == new:
        return
    room = len(old) - len(new) - len("{##}")
    if room < 0:
        raise ValueError(f"the chat template of {model} has {len(old)} bytes; {len(new)} and a comment do not fit")
    with model.open("r+b") as file, mmap(file.fileno(), 0) as content:
        place = content.find(old)
        content[place : place + len(old)] = new + b"{#" + b" " * room + b"#}"


@dataclass(frozen=True, slots=True)
class DiffusionCli:
    """The program on one file.

    :param program: its path.
    :param model: a GGUF file of a diffusion architecture with this vocabulary.
    :param flash: `on`, `off` or `auto`, which is on.
    """

    program: Path
    model: Path
    vocabulary: Vocabulary
    threads: int
    flash: str = "auto"

    def arguments(self, task: Task) -> list[str]:
        """Its command line: greedy, block after block."""
        options = {
            "-m": self.model,
            "-p": self.vocabulary.text(task.prompt),
            "-ub": task.length,
            "-b": task.length,
            "-c": task.length,
            "-t": self.threads,
            "-ngl": 0,
            "-fa": self.flash,
            "--temp": 0,
            "--top-k": 1,
            "--diffusion-algorithm": 4,
            "--diffusion-block-length": task.block,
            "--diffusion-steps": task.asked,
        }
        return [str(self.program), "--no-log-prefix", *(str(item) for pair in options.items() for item in pair)]

    def run(self, task: Task) -> Said:
        """Load, generate, and read what it printed.

        :raises CliError: if it failed, decoded another prompt than it was given, or never printed all.
        """
        for _ in range(TRIALS):
            said = self._said(task)
            end = _END.search(said)
            if end is not None:
                return self._read(task, said, end)
        raise CliError(f"{self.program} did not print all in {TRIALS} runs; the last one ended with: {said[-400:]}")

    def _said(self, task: Task) -> str:
        try:
            found = subprocess.run(
                self.arguments(task), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
            )
        except OSError as error:
            raise CliError(
                f"{self.program} does not run ({error}); give the program as --diffusion-cli PATH"
            ) from error
        if found.returncode:
            raise CliError(f"{self.program} ended with code {found.returncode}: {found.stderr[-400:]}")
        return found.stderr

    def _read(self, task: Task, said: str, end: re.Match[str]) -> Said:
        try:
            tokens = self.vocabulary.ids(end[3])
        except ValueError as error:
            raise CliError(f"{self.program} printed something else than tokens: {error}") from error
        if len(tokens) != task.new:
            raise CliError(f"{self.program} gave {len(tokens)} new tokens instead of {task.new}: another prompt")
        return Said(
            tokens=tuple(tokens),
            passes=said.count(_STEP),
            seconds=float(end[1]) / 1000,
            sampling=float(end[2]) * task.asked / 1000,
        )
