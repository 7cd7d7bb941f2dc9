"""How wrong each commit rule makes the text, and what it saves: total variation against tokens per pass.

On hidden Markov chains whose posterior the denoiser knows exactly (dllm_plugins/training/solvable.py),
at temperature 1: all that is wrong with an answer is the rule's doing. Distributions are followed
exactly, not sampled (dllm_plugins/training/induced.py); only rules that draw noise are averaged over.
Every rule is measured twice: as it decodes, told the probability of the token just drawn, and
`blind`, told the largest probability instead, so that it cannot look at the draw.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from dataclasses import dataclass
from itertools import cycle
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

import click
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.rules import CommitRule
from dllm_plugins.training.chain import Chain
from dllm_plugins.training.induced import Trial
from dllm_plugins.training.induced import induced
from progress import show
from progress import track

ROOT = Path(__file__).parents[1]
STATES, VOCABULARY, LENGTH, PROMPT = 3, 3, 6, (0,)
#: A chain is left out if decoding it in one pass is less wrong than this: there is nothing to see.
LEAST = 0.1
#: Cases a pass that a rule's own noise is averaged over.
AVERAGED = 20_000

LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
#: Values tried of a rule's own parameter (`rule_options`), in place of those of an option.
PARAMETERS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "entropy_bound": ("gamma", (0.0, 0.1, 0.3, 0.6, 0.9, 1.2, 1.8, 2.5, 4.0)),
    "hierarchical": ("low_threshold", LEVELS),
}
#: Values tried of an option, by its name; of several options a rule has, the first one here.
OPTIONS: dict[str, tuple[Any, ...]] = {
    "steps": (6, 3, 2, 1),
    "factor": (0.5, 1.0, 1.5, 2.0, 3.0, 4.0),
    "threshold": LEVELS,
}


@dataclass(frozen=True)
class Point:
    """One rule with one setting, on average over the chains.

    :param tokens_per_pass: answer length over expected passes.
    :param total_variation: between what it samples and the truth.
    :param lowest: of the chains; `highest` likewise.
    :param error: of the average over the rule's noise: half the difference of two runs; 0 where exact.
    """

    rule: str
    setting: dict[str, Any]
    blind: bool
    tokens_per_pass: float
    total_variation: float
    lowest: float
    highest: float
    error: float


def settings(rule: CommitRule) -> list[dict[str, Any]]:
    """What a rule is tried with: one of its knobs at every value, or as it comes."""
    if rule.name in PARAMETERS:
        name, values = PARAMETERS[rule.name]
        return [{"rule_options": {name: value}} for value in values]
    for option, values in OPTIONS.items():
        if option in rule.options:
            return [{option: value} for value in values]
    return [{}]


def chains(count: int) -> list[Chain]:
    """The first that are worth decoding."""
    found: list[Chain] = []
    seed = 0
    while len(found) < count:
        chain = Chain.random(STATES, VOCABULARY, seed, evenness=0.3)
        once = trial(chain, plugins.rules()["quota"], {"steps": 1})
        if induced(once).distance(chain.distribution(LENGTH, PROMPT)) >= LEAST:
            found.append(chain)
        seed += 1
    return found


def trial(chain: Chain, rule: CommitRule, setting: dict[str, Any], *, blind: bool = False) -> Trial:
    """One block at temperature 1."""
    config = SamplingConfig(temperature=1.0, rule=rule.name, block_length=LENGTH, **setting)
    return Trial(chain, rule, config, LENGTH, PROMPT, blind)


def measure(rule: CommitRule, setting: dict[str, Any], known: list[Chain], *, blind: bool) -> Point:
    """The point of one setting."""
    distances, passes, errors = [], [], []
    for chain in known:
        truth, asked = chain.distribution(LENGTH, PROMPT), trial(chain, rule, setting, blind=blind)
        found = induced(asked, averaged=AVERAGED)
        distance = found.distance(truth)
        if not found.exact:
            again = induced(asked, averaged=AVERAGED, seed=1_000_000).distance(truth)
            errors.append(abs(distance - again) / 2)
            distance = (distance + again) / 2
        distances.append(distance)
        passes.append(found.passes)
    return Point(
        rule=rule.name,
        setting=setting,
        blind=blind,
        tokens_per_pass=round(LENGTH / fmean(passes), 4),
        total_variation=round(fmean(distances), 5),
        lowest=round(min(distances), 5),
        highest=round(max(distances), 5),
        error=round(max(errors, default=0.0), 5),
    )


def draw(points: list[Point], place: Path) -> None:
    """Both ways of deciding side by side; the file depends on the points only."""
    mpl.rcParams.update({"svg.hashsalt": "dllm-plugins", "svg.fonttype": "none", "font.size": 10})
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, 2, sharex=True))
    names = sorted({p.rule for p in points})
    looks = dict(zip(names, zip(cycle(mpl.color_sequences["tab10"]), cycle("osD^vP"), strict=False), strict=False))
    titles = ("as decoded: told the drawn token's probability", "blind: told the largest probability (other scale)")
    for panel, title, blind in zip(panels, titles, (False, True), strict=True):
        mine = sorted((p for p in points if p.blind == blind), key=lambda p: (p.rule, p.tokens_per_pass))
        for rule, group in groupby(mine, key=lambda p: p.rule):
            line = list(group)
            panel.errorbar(
                [p.tokens_per_pass for p in line],
                [p.total_variation for p in line],
                [p.error for p in line],
                color=looks[rule][0],
                marker=looks[rule][1],
                markersize=4,
                linewidth=1.3,
                label=rule,
            )
        panel.set(title=title, xlabel="tokens per pass", ylim=(0, None))
        panel.title.set_fontsize(10)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("total variation from the true distribution")
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)
    place.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(place, metadata={"Date": None})


@click.command()
@click.option("--chains", "count", default=4, show_default=True, help="random chains to average over")
@click.option(
    "--rule", "names", multiple=True, help="only this rule; may be repeated (all registered ones if not given)"
)
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "docs" / "img", show_default="docs/img")
@click.option("--again", is_flag=True, help="draw the table that is there, measure nothing")
def main(count: int, names: tuple[str, ...], out: Path, again: bool) -> None:
    """Measure every registered rule; write parallel-error.json and parallel-error.svg."""
    table = out / "parallel-error.json"
    if not again:
        out.mkdir(parents=True, exist_ok=True)
        about = {"states": STATES, "vocabulary": VOCABULARY, "length": LENGTH, "chains": count, "temperature": 1.0}
        points: list[dict[str, Any]] = []
        for point in measured(count, names):
            points.append(asdict(point))
            table.write_text(json.dumps({**about, "points": points}, indent=1) + "\n", encoding="utf-8")
    found = json.loads(table.read_text(encoding="utf-8"))["points"]
    draw([Point(**point) for point in found], out / "parallel-error.svg")


def measured(count: int, names: tuple[str, ...]) -> Iterator[Point]:
    """Every setting of these rules, or of all, printed as it comes."""
    rules, known = plugins.rules(), chains(count)
    tried = [
        (rules[name], setting, blind)
        for name in names or sorted(rules)
        for setting in settings(rules[name])
        for blind in (False, True)
    ]
    for rule, setting, blind in track(tried, "measuring"):
        point = measure(rule, setting, known, blind=blind)
        show(
            f"{rule.name:<16} {setting or 'defaults'!s:<40} {'blind' if blind else '':<6}"
            f"{point.tokens_per_pass:6.2f} tokens/pass   total variation {point.total_variation:.4f}"
        )
        yield point


if __name__ == "__main__":
    main()
