"""A pair beside its target alone: seconds, passes of both models, and how many drafts are accepted.

Greedy, one request at a time, contestants in turns. `pair` decides by the clock how much to draft, `pair_4` has four
drafts in every pass, `pair_text` the same with every draft carried over as text, as between two tokenizers. Named
baselines: the target's own mode `ar`; prompt look-up, and the default model's drafts in the pass that verifies, where
the target has them; transformers' generate on the same weights in bfloat16, greedy, with prompt look-up, and assisted
by its own first layers (`assistant_early_exit`), since there is no smaller model of the same family to assist. Without
other models at hand the default model drafts for itself: a drafter as large as its target, which cannot win. Passes of
`transformers_assisted` count those over the first layers alone, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import click
import torch

from copies import COPIES
from default_model import chat
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.default_model.base_model import require_base
from dllm_plugins.pairs.bridge import TwoTokenizers
from dllm_plugins.pairs.denoiser import PairDenoiser
from dllm_plugins.pairs.drafter import Drafter
from dllm_plugins.training.evaluation_prompts import HELD_OUT
from harness import Answer
from harness import Decode
from harness import race
from passes import measured
from passes import put
from progress import keep
from progress import show

#: Layers after which transformers' assistant stops, of the default model's thirty.
EXIT = 8


@dataclass
class Tally:
    """What became of one contestant's drafts; passes of its drafter."""

    drafted: int = 0
    accepted: int = 0
    passes: int = 0


@dataclass(frozen=True, slots=True)
class PairRow:
    """One contestant. `ratio` is the time of the target's own `ar` over its: above 1 it is faster.

    :param passes: of the target; `draft_passes` of the drafter.
    :param accepted: of the drafts, a share; None where nobody tells.
    :param same_answers: as the target's own `ar` gives.
    """

    name: str
    milliseconds_per_token: float
    ratio: float
    tokens: int
    passes: int
    draft_passes: int
    drafted: int
    accepted: float | None
    same_answers: int
    answers: int


@dataclass
class Field:
    """All contestants, and what is counted of them."""

    model: Model
    tokens: int
    decodes: dict[str, Decode] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)

    def ours(self, name: str, model: Model, **options: Any) -> None:
        """Our engine with these options."""
        config, tally = SamplingConfig(max_new_tokens=self.tokens, **options), self.tallies.setdefault(name, Tally())

        def decode(prompt: str) -> Answer:
            [finish] = model.engine().generate([Request(model.encode_chat(chat(prompt)), config)])
            drafts, own = finish.usage.drafts or {}, finish.usage.passes.get("draft", 0)
            tally.drafted += sum(count for what, count in drafts.items() if what.endswith("_verified"))
            tally.accepted += sum(count for what, count in drafts.items() if what.endswith("_accepted"))
            tally.passes += own
            return Answer(finish.text, len(finish.tokens), finish.usage.total_passes - own, finish.usage.rows)

        self.decodes[name] = decode

    def theirs(self, name: str, network: Any, **options: Any) -> None:
        """Transformers' generate with these."""
        calls, stops = [0], self.model.denoiser.spec.stop_ids
        network.register_forward_pre_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))

        def decode(prompt: str) -> Answer:
            ids, calls[0] = torch.tensor([self.model.encode_chat(chat(prompt))]), 0
            found = network.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=self.tokens,
                do_sample=False,
                pad_token_id=min(stops),
                **options,
            )
            new = found[0, ids.shape[1] :].tolist()
            answer = new[:-1] if new[-1] in stops else new
            return Answer(self.model.tokenizer.decode(answer, skip_special_tokens=True), len(answer), calls[0])

        self.decodes[name] = decode


def as_text(pair: Model) -> Model:
    """The same pair with drafts that are read as text, as where the tokenizers differ."""
    own = pair.denoiser
    assert isinstance(own, PairDenoiser)
    ends = own.drafter.denoiser.spec.stop_ids
    bridge = TwoTokenizers(pair.tokenizer, pair.tokenizer, ends)
    made = PairDenoiser(own.target, Drafter(own.drafter.denoiser, None), bridge, own.guests, f"{pair.name}, as text")
    return Model(made.spec.name, made, pair.tokenizer)


def contestants(ar: str, diffusion: str, tokens: int, peers: bool = True) -> Field:
    """All that take part with these two models."""
    pair = load_model(pair={"ar": ar, "diffusion": diffusion})
    found = Field(pair, tokens)
    found.ours("ar", pair, mode="ar")
    found.ours("pair", pair, mode="pair")
    found.ours("pair_4", pair, mode="pair", draft_length=4)
    if hasattr(pair.tokenizer, "decode"):
        found.ours("pair_text", as_text(pair), mode="pair", draft_length=4)
    if ar == "dllm":
        own = load_model("dllm")
        found.ours("prompt_lookup", own, mode="speculative", drafts="prompt_lookup")
        found.ours("speculative", own, mode="speculative")
    if peers:
        _add_peers(found, require_base() if ar == "dllm" else Path(ar))
    return found


def _add_peers(found: Field, folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, trust_remote_code=False)
    found.theirs("transformers", network)
    found.theirs("transformers_lookup", network, prompt_lookup_num_tokens=8)
    found.theirs("transformers_assisted", network, assistant_early_exit=EXIT)


def rows(found: Field, prompts: list[str], rounds: int, path: Path | None, say: Callable[[str], None]) -> list[PairRow]:
    """A race of all, told as it goes."""
    results: Any = {}
    for lap in race(found.decodes, prompts, rounds):
        say(str(lap))
        results = lap.results or results
    made = [_row(name, results[name], results["ar"], found.tallies.get(name), rounds) for name in found.decodes]
    keep(made, path)
    return made


def _row(name: str, mine: Any, base: Any, tally: Tally | None, rounds: int) -> PairRow:
    drafted = tally.drafted if tally is not None else 0
    return PairRow(
        name=name,
        milliseconds_per_token=round(mine.milliseconds_per_token, 2),
        ratio=round(base.milliseconds_per_token / mine.milliseconds_per_token, 3),
        tokens=mine.tokens,
        passes=sum(answer.passes for answer in mine.answers),
        # Of all rounds, and of the prompt that warms up.
        draft_passes=0 if tally is None else round(tally.passes * len(mine.answers) / (len(mine.answers) * rounds + 1)),
        drafted=0 if tally is None else round(drafted * len(mine.answers) / (len(mine.answers) * rounds + 1)),
        accepted=round(tally.accepted / drafted, 3) if tally is not None and drafted else None,
        same_answers=sum(a.text == b.text for a, b in zip(mine.answers, base.answers, strict=True)),
        answers=len(mine.answers),
    )


def table(made: list[PairRow]) -> str:
    """Rows in Markdown."""
    lines = [
        "| | ms/token | ratio | passes/token | drafter's passes/token | accepted | same answers |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in made:
        accepted = "" if row.accepted is None else f"{100 * row.accepted:.0f} % of {row.drafted}"
        each = max(1, row.tokens)
        lines.append(
            f"| {row.name} | {row.milliseconds_per_token:.1f} | {row.ratio:.2f} | {row.passes / each:.2f} | "
            f"{row.draft_passes / each:.2f} | {accepted} | {row.same_answers} of {row.answers} |"
        )
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("--ar", default="dllm", show_default=True, help="The target.")
@click.option("--diffusion", default="dllm", show_default=True, help="The drafter.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows here.")
@click.option("--prompts", default=6, show_default=True, help="How many held-out prompts, and as many to copy from.")
@click.option("--tokens", default=64, show_default=True, help="Most tokens an answer.")
@click.option("--rounds", default=3, show_default=True, help="Medians are over this many.")
@click.option("--peers/--no-peers", default=True, help="Whether transformers takes part.")
@click.option("--markdown", "page", type=click.Path(path_type=Path), help="Put the table into this page.")
def main(
    ar: str, diffusion: str, path: Path | None, prompts: int, tokens: int, rounds: int, peers: bool, page: Path | None
) -> None:
    asked = [*HELD_OUT[:prompts], *COPIES[:prompts]]
    made = rows(contestants(ar, diffusion, tokens, peers), asked, rounds, path, show)
    show("", table(made))
    if page is not None:
        head = (
            f"{measured()} {len(asked)} prompts, half of them to copy from, at most {tokens} tokens, rounds: {rounds}."
        )
        put(page, "pairs", f"{head}\n\n{table(made)}")


if __name__ == "__main__":
    main()
