"""What a pass over a block costs: the default model beside its floor and its peers, in one run.

The pass is that of mode `diffusion`: one clean and otherwise open rows behind a prefix,
with the head over all of them. Baselines: its own linear layers packed for oneDNN and
nothing else; transformers' eager forward of the base; llama.cpp, when llama-cpp-python is
installed. Contestants take turns; medians. Rows are named CONTESTANT_vs_BASELINE: `ratio`
is the baseline's time over ours, `times_baseline` ours over the baseline's. The last rows
are about the engine's own work, and about a Qwen3 of random weights beside transformers' class.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch

import llama_cpp_pass
from block_rows import HEAD
from block_rows import Row
from block_rows import Setting
from block_rows import agreement
from block_rows import line
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.default_model.base_model import require_base
from dllm_plugins.default_model.load import make_spec
from dllm_plugins.default_model.load import shipped_denoiser
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.kernel import DecoderDenoiser
from dllm_plugins.denoisers.kernel import best_decoder
from dllm_plugins.denoisers.low_rank import load_low_rank
from dllm_plugins.denoisers.low_rank import with_low_rank
from dllm_plugins.denoisers.weights import LlamaShape
from dllm_plugins.denoisers.weights import load_llama
from dllm_plugins.files.replacing import read_config
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.training.evaluation_prompts import HELD_OUT
from eager_pass import Eager
from engine_share import NEVER
from engine_share import parts_of
from packed_linears import PackedLinears
from passes import Contestant
from passes import block
from passes import default_model
from passes import filled
from passes import measured
from passes import medians
from passes import predict
from passes import put
from progress import keep
from progress import say
from progress import show
from progress import track
from random_qwen3 import compared

AR_TOKENS = 64
#: Of the engine, in one measurement.
PASSES = 32


class Passes:
    """A model's pass over a block, and a causal one over as many known tokens for comparisons."""

    def __init__(self, denoiser: Denoiser, tokens: list[int], setting: Setting) -> None:
        row = filled(denoiser, tokens[: setting.prefix])
        self.predict = predict(denoiser, block(denoiser, row, tokens[setting.prefix], setting.prefix, setting.rows))
        places = range(setting.prefix, setting.prefix + setting.rows)
        known = Segment(row, tokens[setting.prefix :], places, wanted=range(setting.rows))
        self.causal = predict(denoiser, [known])


def prompt_of(model: Model, length: int) -> list[int]:
    """A chat of at least `length` tokens, if there are questions enough."""
    tokens: list[int] = []
    for count in range(1, len(HELD_OUT) + 1):
        tokens = model.encode_chat([{"role": "user", "content": "\n".join(HELD_OUT[:count])}])
        if len(tokens) >= length:
            break
    return tokens


def text_of(model: Model, length: int) -> list[int]:
    """`length` tokens of text; questions come again where there are too few."""
    tokens = prompt_of(model, length)
    return (tokens * (length // len(tokens) + 1))[:length]


def bf16_rows(setting: Setting) -> Iterator[Row]:
    """The bfloat16 pass beside its own linear layers and transformers' eager forward."""
    model = default_model("bfloat16", setting.backend)
    tokens = text_of(model, setting.prefix + setting.rows)
    ours, plain = (Passes(each.denoiser, tokens, setting) for each in (model, default_model("bfloat16", "torch")))
    linears = PackedLinears(setting.rows, setting.rows - 1)
    eager = Eager(tokens, setting.prefix)
    found = medians(
        {"ours": Contestant(ours.predict), "linears": Contestant(linears), "eager": Contestant(eager, eager.rewind)},
        setting.rounds,
    )
    to_torch = f"backend torch: {agreement(ours.predict(), plain.predict())}"
    to_eager = f"over known tokens: {agreement(ours.causal(), eager())}"
    eager.rewind()
    yield setting.row("pass16_bf16_vs_linears", found["ours"], found["linears"], "bfloat16", to_torch)
    yield setting.row("pass16_bf16_vs_transformers", found["ours"], found["eager"], "bfloat16", to_eager)


def int8_denoiser() -> Denoiser:
    """The default model with int8 linear layers and head, on the best block decoder for them."""
    shape = LlamaShape.from_config(read_config(require_base()))
    base = load_llama(require_base(), torch.bfloat16)
    low_rank = load_low_rank(shipped_denoiser(), base.shape, torch.bfloat16)
    spec = make_spec(shape, NEVER)
    return DecoderDenoiser(best_decoder(lambda: with_low_rank(base, low_rank), spec, int8=True), spec)


def int8_row(setting: Setting, folder: Path) -> Row:
    """The int8 pass beside llama.cpp's pass in Q4_0 with as many rows of logits."""
    model = default_model("bfloat16", setting.backend)
    tokens = text_of(model, setting.prefix + setting.rows)
    ours, wide = (Passes(each, tokens, setting) for each in (int8_denoiser(), model.denoiser))
    theirs = llama_cpp_pass.LlamaCpp(llama_cpp_pass.quantised("q4_0", folder), torch.get_num_threads())
    theirs.prefill(tokens[: setting.prefix])
    behind = tokens[setting.prefix :]
    contestant = Contestant(
        lambda: theirs.decode(behind, setting.prefix, causal=False, wanted=range(setting.rows)),
        lambda: theirs.rewind(setting.prefix),
    )
    found = medians({"ours": Contestant(ours.predict), "theirs": contestant}, setting.rounds)
    exactness = f"bfloat16: {agreement(ours.predict(), wide.predict())}"
    return setting.row("pass16_int8_vs_llama_cpp_q4_0", found["ours"], found["theirs"], "int8 / Q4_0", exactness)


def ar_row(setting: Setting, folder: Path) -> Row:
    """Token by token: mode `ar` beside llama.cpp in BF16; times of the tokens behind the first."""
    model = default_model("bfloat16", setting.backend)
    tokens = prompt_of(model, setting.prefix)
    config = SamplingConfig(mode="ar", max_new_tokens=AR_TOKENS)
    theirs = llama_cpp_pass.LlamaCpp(llama_cpp_pass.quantised("bf16", folder), torch.get_num_threads())
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    told: dict[str, list[int]] = {}
    for _ in track(range(setting.answers), "measuring whole answers"):
        [finish] = model.engine().generate([Request(tokens, config, stop_ids=NEVER)])
        seconds["ours"].append(finish.usage.seconds - finish.usage.prefill_seconds)
        told["ours"] = list(finish.tokens)
        told["theirs"], taken = theirs.greedy(tokens, AR_TOKENS)
        seconds["theirs"].append(taken)
    ours, baseline = (sorted(taken)[len(taken) // 2] * 1000 / (AR_TOKENS - 1) for taken in seconds.values())
    equal = next((n for n, (a, b) in enumerate(zip(*told.values(), strict=True)) if a != b), AR_TOKENS)
    speeds = f"{1000 / ours:.1f} and {1000 / baseline:.1f} tokens/s"
    return setting.row(
        "ar_vs_llama_cpp_bf16",
        ours,
        baseline,
        "bfloat16",
        f"the first {equal} of {AR_TOKENS} tokens equal; {speeds}",
        unit="ms/token",
        rows=1,
        prefix=len(tokens),
    )


def engine_rows(setting: Setting) -> Iterator[Row]:
    """The engine's own work in a pass over the time of forward and head; the largest share again as `engine_share`."""
    model = default_model("bfloat16", setting.backend)
    tokens = prompt_of(model, setting.prefix)
    found: list[Row] = []
    kept = KeptPrefixes(model.denoiser.spec.context)
    for mode in track(("speculative", "diffusion"), "measuring the engine"):
        parts = parts_of(model, tokens, mode, setting.rows, PASSES, setting.answers, kept)
        shown = ", ".join(f"{name} {ms:.2f}" for name, ms in parts.ms.items())
        found.append(
            setting.row(
                f"engine_share/{mode}",
                parts.engine,
                parts.model,
                "bfloat16",
                f"ms of a pass: {shown}",
                rows=round(parts.rows, 2),
                prefix=len(tokens),
            )
        )
        yield found[-1]
    worst = max(found, key=lambda row: row.times_baseline)
    yield Row(**(asdict(worst) | {"name": "engine_share"}))


def qwen3_rows(setting: Setting) -> Iterator[Row]:
    """The block decoder and transformers' class over the same random weights of a Qwen3."""
    for dtype in (torch.bfloat16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        ours, native, same = compared(dtype, setting.rows, setting.prefix, setting.rounds)
        exactness = "all tokens equal" if same else "tokens differ"
        yield setting.row(f"kernels_vs_native/{name}", ours, native, name, exactness)


def comparisons(setting: Setting, folder: Path) -> Mapping[str, Callable[[], Iterable[Row]]]:
    """What can be measured, by the name under which it can be chosen."""
    return {
        "bf16": lambda: bf16_rows(setting),
        "int8": lambda: [int8_row(setting, folder)],
        "ar": lambda: [ar_row(setting, folder)],
        "engine": lambda: engine_rows(setting),
        "qwen3": lambda: qwen3_rows(setting),
    }


@click.command(help=__doc__)
@click.option("--rows", default=16, show_default=True, help="Positions of a pass.")
@click.option("--prefix", default=256, show_default=True, help="Frozen positions.")
@click.option("--rounds", default=30, show_default=True, help="Turns of the contestants.")
@click.option("--threads", default=2, show_default=True)
@click.option("--backend", help="Of the default model; the kernels, where they serve it, if left out.")
@click.option("--only", multiple=True, type=click.Choice(["bf16", "int8", "ar", "engine", "qwen3"]))
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows here.")
@click.option("--markdown", "page", type=click.Path(path_type=Path), help="Put the table into this page.")
def main(
    rows: int,
    prefix: int,
    rounds: int,
    threads: int,
    backend: str | None,
    only: tuple[str, ...],
    path: Path | None,
    page: Path | None,
) -> None:
    torch.set_num_threads(threads)
    found: list[Row] = []
    lines = [measured(), "", *HEAD]
    show(*lines)
    keep(found, path)
    with TemporaryDirectory() as work:
        for name, measure in comparisons(Setting(rows, prefix, rounds, backend), Path(work)).items():
            if only and name not in only:
                continue
            reason = llama_cpp_pass.missing() if name in ("int8", "ar") else None
            if reason:
                say(f"{name} is left out: {reason}")
                continue
            for row in measure():
                found.append(row)
                lines.append(line(row))
                show(lines[-1])
                keep(found, path)
    if page is not None:
        put(page, "block-pass", "\n".join(lines))


if __name__ == "__main__":
    main()
