"""Mode `auto` beside each fixed mode, transformers and llama.cpp, on a mixed bag of requests.

One run, all in turns. A row AUTO_vs_OTHER is over the kinds of request that both can be asked, and AUTO_vs_OTHER/KIND
over one of them: only a mode that fills gaps is asked to, and only our engine is held to a schema. What the router
measures is kept in a file of this run alone, so it begins knowing nothing.
"""

import tempfile
from collections.abc import Mapping
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
from harness import race
from harness import table
from mixture_bag import BAG
from mixture_bag import PLAIN
from mixture_bag import Asked
from mixture_bag import serves
from mixture_plot import Point
from mixture_plot import draw
from progress import keep
from progress import show

MODES = ("auto", "ar", "speculative", "diffusion")


class Bag:
    """All who take part, and how the router's regret grows."""

    def __init__(self, model: Model, tokens: int, gguf: Path | None, kept: Book) -> None:
        self.asked = Asked(model, tokens)
        self.kept = kept
        self.points: list[Point] = []
        self.engines = {mode: model.engine() for mode in MODES}
        self.engines["auto"].router = Router(completed(model.denoiser), plugins.modes(), model.tokenizer, kept)
        self.fills = filling(plugins.modes(), model.denoiser.spec)
        self.others: dict[str, Decode] = {"transformers_ar": transformers_greedy(model, torch.bfloat16, tokens)}
        if gguf is not None:
            self.others["llama_cpp_ar"] = llama_cpp_greedy(model, gguf, tokens, torch.get_num_threads())

    def of(self, kind: str) -> dict[str, Decode]:
        """Those who can be asked this kind."""
        found = {
            mode: self._ours(mode, engine, kind)
            for mode, engine in self.engines.items()
            if serves(mode, kind, self.fills)
        }
        return found | (self.others if kind in PLAIN else {})

    def _ours(self, mode: str, engine: Engine, kind: str) -> Decode:
        def decode(prompt: str) -> Answer:
            [finish] = engine.generate([self.asked.request(kind, prompt, mode)])
            if mode == "auto":
                self._note()
            usage = finish.usage
            return Answer(finish.text, usage.useful_tokens, usage.total_passes, usage.rows)

        return decode

    def _note(self) -> None:
        known = self.kept.look().situations
        self.points.append(Point(sum(item.regret for item in known), sum(item.seconds for item in known)))


def together(results: Mapping[str, Mapping[str, Result]], names: tuple[str, str]) -> tuple[Result, Result]:
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


def rows_of(results: Mapping[str, Mapping[str, Result]]) -> list[Row]:
    """Over the bag, then kind by kind."""
    others = dict.fromkeys(name for found in results.values() for name in found if name != "auto")
    whole = [compare(f"auto_vs_{name}", *together(results, ("auto", name))) for name in others]
    kinds = [
        compare(f"auto_vs_{name}/{kind}", found["auto"], found[name])
        for kind, found in results.items()
        for name in found
        if name != "auto"
    ]
    return whole + kinds


@click.command()
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows here.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the regret over the answers here, as a PNG.")
@click.option("--tokens", default=64, show_default=True, help="Most tokens an answer.")
@click.option("--rounds", default=5, show_default=True, help="Medians are over this many.")
@click.option("--prompts", default=2, show_default=True, help="How many of each kind.")
@click.option("--dtype", default="auto", show_default=True, help="Our engine's dtype.")
@click.option("--gguf", type=click.Path(path_type=Path), help="GGUF file for llama.cpp.")
def main(
    path: Path | None, plot: Path | None, tokens: int, rounds: int, prompts: int, dtype: str, gguf: Path | None
) -> None:
    """Measure and print a table."""
    model = load_model("dllm", dtype=dtype)
    show(machine(), "")
    with tempfile.TemporaryDirectory() as folder:
        bag = Bag(model, tokens, find_gguf(gguf, click.echo), Book(Path(folder) / "routes.json"))
        results: dict[str, Mapping[str, Result]] = {}
        for kind, texts in BAG.items():
            for lap in race(bag.of(kind), texts[:prompts], rounds):
                show(f"{kind}, {lap}")
                results[kind] = lap.results or results.get(kind, {})
            keep(rows_of(results), path)
    show("", table(rows_of(results)))
    if plot is not None:
        draw(bag.points, plot)


if __name__ == "__main__":
    main()
