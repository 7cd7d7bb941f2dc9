"""10 to 10,000 replicas of the default model, simulated from what its passes cost here; tables for docs/scale.md.

`--measure` times passes of one replica first, in seconds of one thread, and keeps them in scale_costs.json.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.engine import Engine
from passes import drawn
from passes import put
from progress import track
from scale_simulation import POLICIES
from scale_simulation import Costs
from scale_simulation import Setting
from scale_simulation import shown
from scale_simulation import simulate

KEPT = Path(__file__).with_name("scale_costs.json")
#: Tokens that a row gets of a pass in mode speculative: the row `speculative` of docs/benchmarks.md.
YIELDS = 1.63
#: (rows, positions that each sees) of the passes that are timed, and lengths of the prompts.
PASSES = ((1, 128), (4, 128), (8, 128), (16, 128), (1, 1024), (4, 1024), (8, 1024))
PROMPTS = (64, 512)
#: Requests a second for each replica: about a quarter of what one can do.
LOAD = 0.2


def measured(model: Model) -> Costs:
    """What passes of a model cost."""
    timed = [_pass(model, rows, positions) for rows, positions in track(PASSES, "passes")]
    sizes = [(1.0, rows, rows * positions) for rows, positions in PASSES]
    base, row, position = np.linalg.lstsq(np.array(sizes), np.array(timed), rcond=None)[0]
    short, long = (_prefill(model, length) for length in PROMPTS)
    prompt = (long - short) / (PROMPTS[1] - PROMPTS[0])
    base, row, position, prompt = (float(f"{max(0.0, float(cost)):.3g}") for cost in (base, row, position, prompt))
    return Costs(base, row, position, prompt, YIELDS)


def _request(model: Model, length: int, tokens: int) -> Request:
    ids = drawn(length, model.denoiser.spec.vocabulary - 1)
    return Request(ids, SamplingConfig(mode="speculative", max_new_tokens=tokens), stop_ids=frozenset())


def _pass(model: Model, rows: int, positions: int) -> float:
    """Seconds of a pass behind the prompts; the quickest of some, which nothing else has disturbed."""
    engine = model.engine()
    for _ in range(rows):
        engine.admit(_request(model, positions, 64))
    engine.step()
    return min(_seconds(engine) for _ in range(8))


def _prefill(model: Model, length: int) -> float:
    """Seconds of the pass that reads a prompt."""
    found = []
    for _ in range(3):
        engine = model.engine()
        engine.admit(_request(model, length, 1))
        found.append(_seconds(engine))
    return min(found)


def _seconds(engine: Engine) -> float:
    began = time.process_time()
    engine.step()
    return time.process_time() - began


def table(costs: Costs, settings: Sequence[tuple[str, Setting]], what: str) -> str:
    """A row for each setting, named."""
    rows = []
    for name, setting in track(settings, what):
        rows.append({what: name, **shown(simulate(costs, setting), setting)})
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([row[title] for title in head] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables(costs: Costs) -> dict[str, str]:
    """All of the page, by name."""
    usual = Setting(replicas=100, load=LOAD, policy="prefix")
    limits = [(str(limit), replace(usual, limit=limit, load=2 * LOAD)) for limit in (1, 2, 4, 8, 16, 32)]
    kept = [(f"{kept:,}", replace(usual, kept=kept, load=2 * LOAD)) for kept in (0, 1024, 4096, 8192, 32768)]
    loads = [(f"{load}", replace(usual, load=load)) for load in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)]
    policies = [(policy, replace(usual, policy=policy)) for policy in POLICIES]
    sizes = [
        (f"{count:,} {policy}", replace(usual, replicas=count, policy=policy, seconds=30.0, warm=60.0))
        for count in (10, 100, 1000, 10000)
        for policy in ("shortest", "two", "prefix")
    ]
    return {
        "scale-policies": table(costs, policies, "routing"),
        "scale-loads": table(costs, loads, "requests / s / replica"),
        "scale-limits": table(costs, limits, "rows at once"),
        "scale-kept": table(costs, kept, "positions kept"),
        "scale-sizes": table(costs, sizes, "replicas"),
    }


@click.command()
@click.option("--measure", is_flag=True, help="Time passes of the default model first.")
@click.option("--markdown", type=click.Path(path_type=Path, exists=True), help="Put the tables into this page.")
def main(measure: bool, markdown: Path | None) -> None:
    """Simulate, and print the tables."""
    if measure:
        torch.set_num_threads(1)
        KEPT.write_text(json.dumps(asdict(measured(load_model("dllm"))), indent=2) + "\n")
    costs = Costs(**json.loads(KEPT.read_text()))
    for name, text in tables(costs).items():
        click.echo(f"{name}\n{text}\n")
        if markdown is not None:
            put(markdown, name, text)


if __name__ == "__main__":
    main()
