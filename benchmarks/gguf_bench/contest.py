"""One random file, all that decode it, and the rows that come of it."""

from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from dllm_plugins import load_model
from dllm_plugins.gguf.header import read_header
from dllm_plugins.gguf.relabel import with_memory
from dllm_plugins.llama_cpp.convert import convert
from gguf_bench.checkpoints import SHAPES
from gguf_bench.checkpoints import checkpoint
from gguf_bench.checkpoints import weights_of
from gguf_bench.cli import DiffusionCli
from gguf_bench.cli import Task
from gguf_bench.cli import say_prompt_only
from gguf_bench.sides import cached_blocks
from gguf_bench.sides import diffusion_cli
from gguf_bench.sides import engine
from gguf_bench.sides import token_by_token
from gguf_bench.sides import whole_canvas
from gguf_bench.turns import SAME
from gguf_bench.turns import Decode
from gguf_bench.turns import Row
from gguf_bench.turns import Setting
from gguf_bench.turns import Side
from gguf_bench.turns import agreement
from gguf_bench.turns import compare
from gguf_bench.turns import in_turns
from gguf_bench.vocabulary import Vocabulary

#: Blocks of a block-causal model, and passes over each: four tokens a pass.
SDAR_BLOCK, SDAR_STEPS = 16, 4
#: The architecture whose rows have a baseline's bare name, at this size and in this type.
MAIN = {"llama_diffusion_cli": "dream", "llama_cpp_ar": "sdar", "torch": "dream"}
MAIN_SIZE, MAIN_QUANT = "135m", "BF16"
AR_NOTE = "other tokens by design: one a pass, each seeing only what is left of it"


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured.

    :param program: llama-diffusion-cli, if it is there.
    :param folder: an empty one for the random files.
    """

    architecture: str
    size: str
    quant: str
    prompt: int
    new: int
    block: int
    steps: int
    threads: int
    rounds: int
    program: Path | None
    folder: Path

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the file."""
        return Vocabulary.of(SHAPES[self.size].vocabulary)

    @property
    def task(self) -> Task:
        """What both sides decode."""
        words = self.vocabulary.words
        drawn = torch.randint(words.start, words.stop, (self.prompt,), generator=torch.Generator().manual_seed(1))
        causal = self.architecture == "sdar"
        block, steps = (SDAR_BLOCK, SDAR_STEPS) if causal else (self.block, self.steps)
        return Task(tuple(drawn.tolist()), self.new, block, steps)

    @property
    def dtype(self) -> str:
        """Of torch beside the file's quantisation."""
        return "float32" if self.quant == "F32" else "bfloat16"


def contestants(case: Case, folder: Path, file: Path) -> Mapping[str, Decode]:
    """All that can decode here."""
    task = case.task
    ours = load_model(str(file), backend="llama_cpp")
    # Where the processor computes bfloat16, `auto` is that; files of float32 are held against float32.
    blocks = load_model(str(file), backend="kernels", dtype="float32" if case.quant == "F32" else "auto")
    plain = load_model(str(folder), device="cpu", dtype=case.dtype)
    if case.architecture == "sdar":
        config = cached_blocks(task)
        found = {"cached": engine(ours, task, config), "torch": engine(plain, task, config)}
        found["kernels"] = engine(blocks, task, config)
    else:
        cached = whole_canvas(task, "prefix")
        found = {
            "cached": engine(ours, task, cached),
            "whole": engine(ours, task, whole_canvas(task, None)),
            "torch": engine(plain, task, cached),
            "kernels": engine(blocks, task, cached),
            "kernels_whole": engine(blocks, task, whole_canvas(task, None)),
        }
        if case.program is not None:
            found["cli"] = diffusion_cli(DiffusionCli(case.program, file, case.vocabulary, case.threads), task)
    return found | {"ar": token_by_token(with_memory(read_header(file)), task, case.threads)}


def rows(case: Case) -> list[Row]:
    """Write the files, let all decode, compare.

    :raises gguf_bench.cli.CliError: if llama-diffusion-cli fails.
    """
    folder = case.folder / "checkpoint"
    folder.mkdir()
    checkpoint(case.architecture, SHAPES[case.size], folder)
    found = in_turns(contestants(case, folder, converted(case, folder, case.quant)), case.rounds)
    setting = Setting(
        architecture=case.architecture,
        size=case.size,
        quant=case.quant,
        weights=weights_of(folder),
        threads=case.threads,
        prompt=case.prompt,
        new_tokens=case.new,
    )
    return [
        *cli_rows(case, found, setting, folder),
        *other_rows(case, found, setting),
        *kernel_rows(case, found, setting),
    ]


def converted(case: Case, folder: Path, quant: str) -> Path:
    """The checkpoint as a GGUF file."""
    file = convert(folder, case.folder / f"{case.architecture}-{quant}.gguf", quant)
    say_prompt_only(file)
    return file


def whole_canvas_exactness(case: Case, found: Mapping[str, Side], folder: Path) -> str:
    """Whether both give the same tokens; if not, both decode a float32 file once more, unmeasured."""
    equal = agreement(found["whole"].answer, found["cli"].answer)
    if equal == SAME or case.quant == "F32" or case.program is None:
        return equal
    file, task = converted(case, folder, "F32"), case.task
    ours = engine(load_model(str(file), backend="llama_cpp"), task, whole_canvas(task, None))
    theirs = diffusion_cli(DiffusionCli(case.program, file, case.vocabulary, case.threads), task)
    return f"{equal} (theirs keeps keys and values unrounded); in float32: {agreement(ours(), theirs())}"


def name_of(case: Case, baseline: str, suffix: str = "") -> str:
    """A row's name: the baseline, and in what the case is not the main one."""
    parts = (
        "" if MAIN[baseline] == case.architecture else case.architecture,
        "" if case.size == MAIN_SIZE else case.size,
        "" if case.quant == MAIN_QUANT else case.quant,
        suffix,
    )
    return "/".join((baseline, *(part for part in parts if part)))


def cli_rows(case: Case, found: Mapping[str, Side], setting: Setting, folder: Path) -> list[Row]:
    """With the cached prefix and with the exact whole canvas beside llama-diffusion-cli; none without it."""
    if "cli" not in found:
        return []
    theirs, task = found["cli"], case.task
    spare = theirs.answer.passes - task.passes
    decoding = f"blocks of {task.block} in {task.steps} passes each, greedy, left to right"
    note = f"{spare} of its passes are of blocks behind the end; ratio leaves them out" if spare else ""
    cached, whole = (name_of(case, "llama_diffusion_cli", suffix) for suffix in ("", "whole"))
    close = f"approximate: {agreement(found['cached'].answer, theirs.answer)}"
    equal = whole_canvas_exactness(case, found, folder)
    how = f"{decoding}; ours behind a cached prefix"
    return [
        compare(cached, found["cached"], theirs, setting, how, close, note, spare),
        compare(whole, found["whole"], theirs, setting, f"{decoding}; the whole canvas every pass", equal, note, spare),
    ]


def other_rows(case: Case, found: Mapping[str, Side], setting: Setting) -> list[Row]:
    """Beside llama.cpp token by token, and beside our engine in torch."""
    task, ours = case.task, found["cached"]
    cache = "exact cache" if case.architecture == "sdar" else "approximate prefix cache"
    decoding = f"blocks of {task.block} in {task.steps} passes each, greedy, {cache}"
    equal = agreement(ours.answer, found["torch"].answer)
    return [
        compare(name_of(case, "llama_cpp_ar"), ours, found["ar"], setting, decoding, "not comparable", AR_NOTE),
        compare(
            name_of(case, "torch"),
            ours,
            found["torch"],
            setting,
            decoding,
            equal,
            f"torch in {case.dtype}",
        ),
    ]


def kernel_rows(case: Case, found: Mapping[str, Side], setting: Setting) -> Iterator[Row]:
    """Our kernels on the file's own blocks beside whatever else decodes the same canvas, one row a baseline."""
    task = case.task
    name = f"{case.architecture}_{case.size}_{case.quant.lower()}_p{case.prompt}n{case.new}"
    decoding = f"blocks of {task.block} in {task.steps} passes each, greedy"
    for suffix, ours in (("", "kernels"), ("/whole", "kernels_whole")):
        for baseline, side in (("llama_cpp", "whole" if suffix else "cached"), ("llama_diffusion_cli", "cli")):
            if ours in found and side in found:
                theirs = found[side]
                spare = theirs.answer.passes - task.passes if side == "cli" else 0
                equal = agreement(found[ours].answer, theirs.answer)
                row = f"{name}{suffix}" if baseline == "llama_cpp" else f"{name}{suffix}/{baseline}"
                yield compare(row, found[ours], theirs, setting, decoding, equal, spare=spare)
