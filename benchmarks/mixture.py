"""Mode `auto` beside each fixed mode, transformers and llama.cpp, on a mixed bag of requests.

One run, all in turns: first a bag that the router learns from, beginning with nothing, then a bag of other prompts. A
row AUTO_vs_OTHER is over the kinds of request that both can be asked, and AUTO_vs_OTHER/KIND over one of them: only a
mode that fills gaps is asked to, and only our engine is held to a schema. Rows of the first bag begin with `learning/`.
"""

import statistics
import tempfile
import time
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import torch

from default_model import find_gguf
from default_model import llama_cpp_greedy
from default_model import transformers_greedy
from dllm_plugins import Model
from dllm_plugins import load_model
from dllm_plugins import plugins
from dllm_plugins.denoisers.base import completed
from dllm_plugins.engine import Engine
from dllm_plugins.engine.admission import filling
from dllm_plugins.routing.kept import Book
from dllm_plugins.routing.router import Router
from harness import Answer
from harness import Decode
from harness import Result
from harness import Row
from harness import compare
from harness import machine
from harness import table
from mixture_bag import BAG
from mixture_bag import PLAIN
from mixture_bag import Asked
from mixture_bag import half
from mixture_bag import mixed
from mixture_bag import puzzles
from mixture_bag import serves
from mixture_plot import Point
from mixture_plot import draw
from progress import keep
from progress import show
from progress import track

MODES = ("auto", "ar", "speculative", "diffusion")
#: Tokens of answers that nobody measures.
_WARM = 32
Results = Mapping[str, Mapping[str, Result]]


class Side:
    """One model, and who decodes it.

    :param kept: where its router keeps what it measures.
    """

    def __init__(self, model: Model, modes: Sequence[str], tokens: int, kept: Book) -> None:
        self.asked = Asked(model, tokens)
        self.engines = {mode: model.engine() for mode in modes}
        self.engines["auto"].router = Router(completed(model.denoiser), plugins.modes(), model.tokenizer, kept)
        self.fills = filling(plugins.modes(), model.denoiser.spec)
        self.others: dict[str, Decode] = {}

    def of(self, kind: str) -> dict[str, Decode]:
        """Those who can be asked this kind."""
        found = {
            mode: self._ours(mode, engine, kind)
            for mode, engine in self.engines.items()
            if kind == "puzzles" or serves(mode, kind, self.fills)
        }
        return found | (self.others if kind in PLAIN else {})

    def warm_up(self, kind: str, prompt: str) -> None:
        """Whatever is measured, compiled and allocated with a first answer; the router learns nothing of it."""
        asked = replace(self.asked, tokens=_WARM)
        for mode in self.of(kind).keys() - {"auto"}:
            for engine in (self.engines[mode], self.engines["auto"]):
                engine.generate([asked.request(kind, prompt, mode)])

    def _ours(self, mode: str, engine: Engine, kind: str) -> Decode:
        def decode(prompt: str) -> Answer:
            [finish] = engine.generate([self.asked.request(kind, prompt, mode)])
            usage = finish.usage
            return Answer(finish.text, usage.useful_tokens, usage.total_passes, usage.rows)

        return decode


class Bag:
    """Both models, and how the router's regret grows."""

    def __init__(self, kept: Book, tokens: int) -> None:
        self.kept, self.tokens = kept, tokens
        self.points: list[Point] = []
        self.sides: dict[str, Side] = {}

    def add(self, model: Model, modes: Sequence[str], kinds: Sequence[str]) -> Side:
        """A model that is asked these kinds."""
        side = Side(model, modes, self.tokens, self.kept)
        self.sides |= dict.fromkeys(kinds, side)
        return side

    def _note(self) -> None:
        known = self.kept.look().situations
        self.points.append(Point(sum(item.regret for item in known), sum(item.seconds for item in known)))

    def run(self, bag: Mapping[str, Sequence[str]], rounds: int, what: str) -> Results:
        """Everybody answers everything so often, in turns; medians of each prompt's seconds."""
        answers: dict[tuple[str, str, str], Answer] = {}
        seconds: dict[tuple[str, str, str], list[float]] = {}
        for place, (kind, text) in enumerate(track(mixed(bag) * rounds, what)):
            contestants = list(self.sides[kind].of(kind).items())
            turn = place % len(contestants)
            for name, decode in contestants[turn:] + contestants[:turn]:
                began = time.perf_counter()
                answer = decode(text)
                seconds.setdefault((kind, name, text), []).append(time.perf_counter() - began)
                answers.setdefault((kind, name, text), answer)
                if name == "auto":
                    self._note()
        return {
            kind: {name: _result(kind, name, texts, answers, seconds) for name in self.sides[kind].of(kind)}
            for kind, texts in bag.items()
        }


def _result(
    kind: str,
    name: str,
    texts: Sequence[str],
    answers: Mapping[tuple[str, str, str], Answer],
    seconds: Mapping[tuple[str, str, str], Sequence[float]],
) -> Result:
    places = [(kind, name, text) for text in texts]
    return Result(
        tuple(answers[place] for place in places), tuple(statistics.median(seconds[place]) for place in places)
    )


def together(results: Results, names: tuple[str, str]) -> tuple[Result, Result]:
    """Two contestants over all kinds that both were asked.

    :param results: by kind and name.
    """
    both = [found for found in results.values() if all(name in found for name in names)]
    one, other = (
        Result(
            tuple(answer for found in both for answer in found[name].answers),
            tuple(second for found in both for second in found[name].seconds),
        )
        for name in names
    )
    return one, other


def rows_of(results: Results, before: str = "") -> list[Row]:
    """Over the bag, then kind by kind.

    :param before: what names of rows begin with.
    """
    others = dict.fromkeys(name for found in results.values() for name in found if name != "auto")
    whole = [compare(f"{before}auto_vs_{name}", *together(results, ("auto", name))) for name in others]
    kinds = [
        compare(f"{before}auto_vs_{name}/{kind}", found["auto"], found[name])
        for kind, found in results.items()
        for name in found
        if name != "auto"
    ]
    return whole + kinds


@click.command()
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows here.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the regret over the answers here, as a PNG.")
@click.option("--tokens", default=64, show_default=True, help="Most tokens an answer.")
@click.option("--rounds", default=3, show_default=True, help="Medians are over this many.")
@click.option("--prompts", default=3, show_default=True, help="Of each kind, to learn from and to measure; at most 3.")
@click.option("--quick", is_flag=True, help="One prompt of each kind, 48 tokens and one round: about two minutes.")
@click.option("--puzzles", "folder", type=click.Path(path_type=Path), help="A model of 4 by 4 Sudokus joins in.")
@click.option("--dtype", default="auto", show_default=True, help="Our engine's dtype.")
@click.option("--gguf", type=click.Path(path_type=Path), help="GGUF file for llama.cpp.")
def main(
    path: Path | None,
    plot: Path | None,
    tokens: int,
    rounds: int,
    prompts: int,
    quick: bool,
    folder: Path | None,
    dtype: str,
    gguf: Path | None,
) -> None:
    """Measure and print two tables."""
    tokens, rounds, prompts = (48, 1, 1) if quick else (tokens, rounds, prompts)
    show(machine(), "")
    with tempfile.TemporaryDirectory() as kept:
        bag, texts = Bag(Book(Path(kept) / "routes.json"), tokens), dict(BAG)
        model = load_model("dllm", dtype=dtype)
        side = bag.add(model, MODES, list(BAG))
        if folder is not None:
            solver = load_model(str(folder))
            bag.add(solver, ("auto", *solver.denoiser.spec.modes), ["puzzles"])
            texts["puzzles"] = puzzles(2 * prompts)
        for kind in texts:
            bag.sides[kind].warm_up(kind, texts[kind][0])
        learnt = bag.run({kind: half(own, 0, prompts) for kind, own in texts.items()}, 1, "learning")
        rows = rows_of(learnt, "learning/")
        keep(rows, path)
        show("The bag that the router learns from:", "", table(rows), "")
        side.others["transformers_ar"] = transformers_greedy(model, torch.bfloat16, tokens)
        if (file := find_gguf(gguf, click.echo)) is not None:
            side.others["llama_cpp_ar"] = llama_cpp_greedy(model, file, tokens, torch.get_num_threads())
        for other in side.others.values():
            other(texts["chat"][0])
        measured = rows_of(bag.run({kind: half(own, 1, prompts) for kind, own in texts.items()}, rounds, "measuring"))
        keep([*rows, *measured], path)
        show("Other prompts:", "", table(measured))
    if plot is not None:
        draw(bag.points, plot)


if __name__ == "__main__":
    main()
