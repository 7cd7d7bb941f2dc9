"""Many callers: tokens per second of 1 to 32 requests at once, of ours and of llama.cpp's batches.

Greedy, the held-out prompts in their order, and all requests of a batch are there from the beginning; a batch takes as
long as its longest answer. Ours goes through the engine, which shares passes between rows; llama.cpp decodes the same
file through llama-cpp-python's low-level batch, one token of every sequence a pass. Rows are
CONTESTANT_batchN_vs_batch1, a contestant beside itself, and CONTESTANT_batchN_vs_llama_cpp_batchN.
"""

import statistics
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import torch

import llama_cpp_pass
from default_model import chat
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.training.evaluation_prompts import HELD_OUT
from harness import machine
from llama_cpp_pass import LlamaCpp
from llama_cpp_pass import Placed
from passes import measured
from passes import put
from progress import keep
from progress import show

BATCHES = (1, 2, 4, 8, 16, 32)
#: What of ours takes part: weights, and mode.
OURS = {
    "ar": ("auto", "ar"),
    "speculative": ("auto", "speculative"),
    "ar_int8": ("blocks_int8", "ar"),
    "speculative_int8": ("blocks_int8", "speculative"),
}
LLAMA = "llama_cpp_"


@dataclass(frozen=True, slots=True)
class Told:
    """What a batch gave: useful tokens, passes, and the answers' tokens."""

    answers: tuple[tuple[int, ...], ...]
    passes: int

    @property
    def tokens(self) -> int:
        """Of all answers."""
        return sum(map(len, self.answers))


#: Answers to prompts that are ids already, all at once.
Decode = Callable[[Sequence[list[int]]], Told]


@dataclass(frozen=True, slots=True)
class Row:
    """A batch beside another one; `ratio` above 1 is more tokens per second than the baseline."""

    name: str
    ours: float
    baseline: float
    unit: str
    ratio: float
    batch: int
    tokens: int
    passes: int
    tokens_per_forward: float
    same_answers: int


def ours(model: Model, mode: str, tokens: int) -> Decode:
    """Through the engine; passes are those of the request that took most."""
    config = SamplingConfig(max_new_tokens=tokens, mode=mode, temperature=0.0)

    def decode(prompts: Sequence[list[int]]) -> Told:
        finishes = model.engine().generate([Request(prompt, config) for prompt in prompts])
        passes = max(finish.usage.total_passes for finish in finishes)
        return Told(tuple(tuple(finish.tokens) for finish in finishes), passes)

    return decode


def llama_cpp(file: Path, stops: frozenset[int], tokens: int, batch: int, longest: int) -> Decode:
    """Sequences that leave when they have ended."""
    network = LlamaCpp(file, torch.get_num_threads(), longest + tokens, batch)

    def decode(prompts: Sequence[list[int]]) -> Told:
        answers: list[list[int]] = []
        for number, prompt in enumerate(prompts):
            network.rewind(0, number)
            last = len(prompt) - 1
            placed = [Placed(token, place, number, place == last) for place, token in enumerate(prompt)]
            answers.append([int(network.forward(placed)[0].argmax())])
        passes = 1
        while running := [n for n, answer in enumerate(answers) if answer[-1] not in stops and len(answer) < tokens]:
            placed = [Placed(answers[n][-1], len(prompts[n]) + len(answers[n]) - 1, n) for n in running]
            for number, token in zip(running, network.forward(placed).argmax(-1), strict=True):
                answers[number].append(int(token))
            passes += 1
        useful = (tuple(answer[:-1] if answer[-1] in stops else answer) for answer in answers)
        return Told(tuple(useful), passes)

    return decode


def contest(
    contestants: Mapping[str, Decode], prompts: Sequence[list[int]], rounds: int
) -> dict[str, tuple[float, Told]]:
    """Tokens per second of each, the median of turns, and what it said."""
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    told: dict[str, Told] = {}
    for turn in range(rounds + 1):
        for name, decode in contestants.items():
            began = time.perf_counter()
            told[name] = decode(prompts)
            taken = time.perf_counter() - began
            # The first turn warms up.
            if turn or not rounds:
                speeds[name].append(told[name].tokens / taken)
    return {name: (statistics.median(speeds[name]), told[name]) for name in contestants}


def row(name: str, batch: int, own: tuple[float, Told], other: tuple[float, Told]) -> Row:
    """One comparison."""
    (speed, told), (baseline, said) = own, other
    same = sum(a == b for a, b in zip(told.answers, said.answers, strict=False))
    tpf = round(told.tokens / batch / max(1, told.passes), 3)
    ratio = round(speed / baseline, 3)
    return Row(name, round(speed, 1), round(baseline, 1), "tokens/s", ratio, batch, told.tokens, told.passes, tpf, same)


def rows(
    models: Mapping[str, Model], files: Mapping[str, Path], batches: Sequence[int], tokens: int, rounds: int
) -> Iterator[Row]:
    """All comparisons, batch by batch."""
    stored = models["auto"]
    alone: dict[str, tuple[float, Told]] = {}
    for batch in batches:
        prompts = [stored.encode_chat(chat(HELD_OUT[place % len(HELD_OUT)])) for place in range(batch)]
        longest = max(map(len, prompts))
        everyone = {name: ours(models[weights], mode, tokens) for name, (weights, mode) in OURS.items()}
        stops = stored.denoiser.spec.stop_ids
        everyone |= {LLAMA + kind: llama_cpp(file, stops, tokens, batch, longest) for kind, file in files.items()}
        found = contest(everyone, prompts, rounds)
        alone = alone or found
        for name in everyone:
            if batch > 1:
                yield row(f"{name}_batch{batch}_vs_batch{batches[0]}", batch, found[name], alone[name])
            if not name.startswith(LLAMA):
                for kind in files:
                    against = LLAMA + kind
                    yield row(f"{name}_batch{batch}_vs_{against}_batch{batch}", batch, found[name], found[against])


def table(found: Sequence[Row]) -> str:
    """Rows in Markdown."""
    lines = ["| row | ours | baseline | ratio | tokens | passes | tokens/pass/request | same answers |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for each in found:
        speeds = f"{each.ours:.1f} {each.unit} | {each.baseline:.1f} {each.unit} | {each.ratio:.2f}"
        counts = f"{each.tokens} | {each.passes} | {each.tokens_per_forward:.2f} | {each.same_answers}"
        lines.append(f"| {each.name} | {speeds} | {counts} of {each.batch} |")
    return "\n".join(lines)


@click.command()
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows here.")
@click.option("--batch", "batches", type=int, multiple=True, default=BATCHES, help="Requests at once; again for more.")
@click.option("--tokens", default=48, show_default=True, help="Most tokens an answer.")
@click.option("--rounds", default=2, show_default=True, help="Medians are over this many, after one that warms up.")
@click.option("--dtype", default="auto", show_default=True, help="What is multiplied in.")
@click.option("--markdown", "page", type=click.Path(path_type=Path), help="Put the table into this page.")
def main(path: Path | None, batches: tuple[int, ...], tokens: int, rounds: int, dtype: str, page: Path | None) -> None:
    """Measure and print a table."""
    options: dict[str, Any] = {"device": "cpu", "dtype": dtype}
    models = {weights: load_model("dllm", weights=weights, **options) for weights in ("auto", "blocks_int8")}
    show(machine())
    found: list[Row] = []
    with TemporaryDirectory() as folder:
        files = llama_cpp_pass.contestants(Path(folder))
        for each in rows(models, files, batches, tokens, rounds):
            found.append(each)
            show(f"{each.name}: {each.ours:.1f} {each.unit}, {each.ratio:.2f} times {each.baseline:.1f}")
            keep(found, path)
    show("", table(found))
    if page is not None:
        put(page, "batched", f"{measured()} At most {tokens} tokens, rounds: {rounds}, {dtype}.\n\n{table(found)}")


if __name__ == "__main__":
    main()
