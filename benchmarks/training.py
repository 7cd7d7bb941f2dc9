"""What a training step costs: ours beside ZHZisZZ/dllm's on the same weights, batch and noise, and LoRA beside full.

    python benchmarks/training.py --zhz CHECKOUT --json steps.json

A step is forward, backward and AdamW's, on a random Qwen3 of 135 million weights in float32. Both sides take turns;
times are processor seconds of this process, medians over rounds. Peak memory is measured in a process for each side.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from dllm_transformers.diffusion_model import DiffusionModelForCausalLM
from harness import machine
from peers.models import BLOCK
from peers.models import MASK
from peers.models import qwen3_folder
from peers.peer import Setup
from peers.peer import Size

Step = Callable[[int], float]


@dataclass(frozen=True, slots=True)
class Row:
    """Two sides of one kind of step.

    :param ratio: how many times as fast ours is.
    :param apart: the largest difference of the two losses; None where they are not to be equal.
    """

    name: str
    ours: float
    theirs: float
    ratio: float
    apart: float | None
    tokens: float


def batch(rows: int, length: int, prompt: int) -> tuple[Tensor, Tensor]:
    """Tokens and labels, int64 [rows, length]; the first `prompt` of each are given."""
    tokens = torch.randint(100, MASK, (rows, length), generator=torch.Generator().manual_seed(1))
    return tokens, tokens.masked_fill(torch.arange(length) < prompt, -100)


def ours(folder: Path, preset: str, lora: int = 0) -> Any:
    """Our class with the folder's weights; only the loss is asked for."""
    # By its class: their modules teach the Auto classes another one for the same type.
    model: Any = DiffusionModelForCausalLM.from_pretrained(
        folder, preset=preset, mask_id=MASK, dtype=torch.float32, trust_remote_code=False
    )
    model.loss_only = True
    if lora:
        from peft import LoraConfig
        from peft import get_peft_model

        model = get_peft_model(model, LoraConfig(r=lora, target_modules="all-linear"))
    return model.train()


def stepping(model: Any, loss: Callable[[int], Tensor]) -> Step:
    """A step of AdamW; called with the noise's seed, it gives the loss."""
    optimiser = torch.optim.AdamW([part for part in model.parameters() if part.requires_grad], lr=1e-5)

    def step(seed: int) -> float:
        found = loss(seed)
        found.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return float(found.detach())

    return step


def our_step(folder: Path, preset: str, given: tuple[Tensor, Tensor], lora: int = 0) -> Step:
    """Of our class; see :func:`stepping`."""
    model, (tokens, labels) = ours(folder, preset, lora), given
    more = {"block_length": BLOCK} if preset == "bd3lm" else {}

    def loss(seed: int) -> Tensor:
        luck = torch.Generator().manual_seed(seed)
        found: Tensor = model(input_ids=tokens, labels=labels, generator=luck, **more).loss
        return found

    return stepping(model, loss)


def their_step(setup: Setup, preset: str, given: tuple[Tensor, Tensor]) -> Step:
    """Of theirs."""
    from zhz_training import TheirLoss

    theirs = TheirLoss(setup, preset)
    return stepping(theirs.model, lambda seed: theirs(*given, seed))


def race(name: str, first: Step, second: Step, rounds: int, tokens: int, *, same: bool) -> Row:
    """Both in turns; the first round warms up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    apart = 0.0
    for seed in range(rounds + 1):
        losses = []
        for step, spent in zip((first, second), seconds, strict=True):
            began = time.process_time()
            losses.append(step(seed))
            spent.append(time.process_time() - began)
        apart = max(apart, abs(losses[0] - losses[1]))
    mine, other = (statistics.median(spent[1:]) for spent in seconds)
    click.echo(f"{name}: {other / mine:.2f}", err=True)
    return Row(name, mine, other, other / mine, apart if same else None, tokens / mine)


def peak(side: str, arguments: list[str]) -> int:
    """Bytes resident at the peak of three steps of one side, in a process of its own."""
    command = [sys.executable, __file__, "--only", side, *arguments]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def table(rows: list[Row], peaks: dict[str, int]) -> str:
    """Markdown."""
    lines = ["| row | ours, s | other, s | times as fast | losses apart | tokens/s |", "|---|---|---|---|---|---|"]
    for row in rows:
        apart = "" if row.apart is None else f"{row.apart:.0e}"
        lines.append(
            f"| {row.name} | {row.ours:.2f} | {row.theirs:.2f} | {row.ratio:.2f} | {apart} | {row.tokens:.0f} |"
        )
    return "\n".join([*lines, "", *(f"{name}: {size / 2**20:.0f} MiB" for name, size in peaks.items())])


@click.command()
@click.option(
    "--zhz", type=click.Path(path_type=Path, exists=True), help="A checkout of ZHZisZZ/dllm; left out without."
)
@click.option("--rows", default=2, show_default=True, help="Texts of a batch.")
@click.option("--length", default=64, show_default=True, help="Tokens of a text.")
@click.option("--rounds", default=4, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--only", help="SIDE/PRESET, such as ours/mdlm: print the bytes of its peak, and nothing else.")
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(
    zhz: Path | None, rows: int, length: int, rounds: int, threads: int, only: str | None, out: Path | None
) -> None:
    """Print the table."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as place:
        setup = Setup(Size(1, 1), torch.float32, Path(place), zhz)
        qwen3_folder(setup.folder)
        if only is not None:
            click.echo(_taken(setup, only, batch(rows, length, length // 2)))
            return
        found = list[Row]()
        for preset in ("mdlm", "bd3lm") if zhz else ():
            for prompt in (length // 2, 0):
                given = batch(rows, length, prompt)
                pair = our_step(setup.folder, preset, given), their_step(setup, preset, given)
                name = f"train_step_vs_zhz_{preset}, prompts of {prompt}"
                found.append(race(name, *pair, rounds, rows * length, same=True))
        given = batch(rows, length, 0)
        for preset in ("mdlm", "bd3lm"):
            pair = our_step(setup.folder, preset, given, lora=8), our_step(setup.folder, preset, given)
            found.append(race(f"lora_vs_full_{preset}", *pair, rounds, rows * length, same=False))
    sides = [f"{side}/{preset}" for preset in ("mdlm", "bd3lm") for side in (("ours", "theirs") if zhz else ("ours",))]
    arguments = ["--rows", str(rows), "--length", str(length), *(["--zhz", str(zhz)] if zhz else [])]
    peaks = {side: peak(side, arguments) for side in [*sides, "lora/mdlm"]}
    click.echo(f"{machine()}\n\n{table(found, peaks)}")
    if out is not None:
        out.write_text(json.dumps({"rows": [asdict(row) for row in found], "peak": peaks}, indent=1) + "\n")


def _taken(setup: Setup, only: str, given: tuple[Tensor, Tensor]) -> int:
    side, _, preset = only.partition("/")
    if side == "theirs":
        step = their_step(setup, preset, given)
    else:
        step = our_step(setup.folder, preset, given, lora=8 if side == "lora" else 0)
    # Forget the peak of loading; Linux alone can. Mapped weights become the process's own at the first step, so that
    # only the whole can be compared.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for seed in range(3):
        step(seed)
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
