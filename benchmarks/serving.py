"""Our server beside transformers' and llama-cpp-python's: same weights, loopback, some clients at once.

Each client streams greedy chat completions of the held-out prompts, one after another. Tokens are those of the answers'
texts in the model's tokenizer, for all servers. Rows are named server_vs_SERVER with the number of clients beside it:
tokens per second of all clients together, and the median time to the first text. Tokens per pass are our server's, of
one answer; a pass is shared by the answers of all clients. `same` counts answers that the same server gives to a client
alone, too.

Servers are programs of their own that take turns; those whose turn it is not are idle.
"""

import importlib.util
import statistics
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from transformers import AutoTokenizer
from transformers import PreTrainedTokenizerBase

from clients import Crowd
from clients import chat
from clients import crowd
from default_model import find_gguf
from dllm_plugins.default_model.base_model import require_base
from dllm_plugins.training.evaluation_prompts import HELD_OUT
from harness import machine
from passes import measured
from passes import put
from progress import keep
from progress import show
from servers import Server
from servers import of_llama_cpp
from servers import of_transformers
from servers import ours
from servers import running

OURS = "server"


@dataclass(frozen=True, slots=True)
class Row:
    """A comparison; `ratio` above 1 is more tokens per second than the baseline, `first_ratio` an earlier first text.

    :param first: milliseconds to the first text, the median of all requests.
    :param tokens_per_pass: of our server: of all rows together.
    """

    name: str
    clients: int
    ours: float
    baseline: float
    unit: str
    ratio: float
    first: float
    baseline_first: float
    first_ratio: float
    tokens: int
    baseline_tokens: int
    passes: int
    tokens_per_pass: float
    same: str
    baseline_same: str


@dataclass(frozen=True, slots=True)
class Measured:
    """One server with some clients: medians over rounds.

    :param texts: of the answers, in the order of the prompts.
    """

    speed: float
    first: float
    tokens: int
    passes: int
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked.

    :param tokens: of an answer, at most.
    """

    prompts: Sequence[str]
    tokens: int
    rounds: int

    def bodies(self, model: str) -> list[dict[str, object]]:
        """Requests for all prompts."""
        return [chat(model, prompt, self.tokens) for prompt in self.prompts]


def commands(threads: int, gguf: Path | None) -> dict[str, tuple[tuple[str, ...], str]]:
    """Of all servers that can run here: the command, and what requests call the model."""
    base = require_base()
    found = {
        OURS: (ours(), "dllm"),
        "transformers_serve": (of_transformers(base), str(base)),
        "transformers_serve_batching": (of_transformers(base, "--continuous-batching"), str(base)),
    }
    if gguf is not None and importlib.util.find_spec("starlette_context"):
        found["llama_cpp_server"] = (of_llama_cpp(gguf, threads), "base")
    else:
        show("llama.cpp's server does not take part; `make gguf` and the extra `bench` bring its packages")
    return found


def passes_of(name: str, server: Server) -> int:
    """Those that a server of ours has made, of all kinds; one counts for every answer that takes part in it."""
    return server.figure("dllm_passes_total") if name == OURS else 0


def ask(name: str, server: Server, plan: Plan, clients: int) -> tuple[Crowd, int]:
    """All prompts once, and the passes that they took.

    :raises RuntimeError: if an answer fails.
    """
    before = passes_of(name, server)
    found = crowd(server.address, plan.bodies(server.model), clients)
    failed = [told.error for told in found.told if told.error]
    if failed:
        raise RuntimeError(f"{name}, {clients} clients: {len(failed)} of {len(found.told)} failed: {failed[0]}")
    return found, passes_of(name, server) - before


def race(
    servers: Mapping[str, Server], plan: Plan, clients: int, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Measured]:
    """All servers in turns."""
    names = list(servers)
    speeds: dict[str, list[float]] = {name: [] for name in names}
    firsts: dict[str, list[float]] = {name: [] for name in names}
    last: dict[str, Measured] = {}
    for turn in range(plan.rounds):
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            found, passes = ask(name, servers[name], plan, clients)
            texts = tuple(told.text for told in found.told)
            tokens = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
            speeds[name].append(tokens / found.seconds)
            firsts[name] += [told.first for told in found.told if told.first is not None]
            show(f"round {turn + 1}, {clients} clients: {name} {tokens} tokens, {speeds[name][-1]:.1f} tokens/s")
            speed, first = statistics.median(speeds[name]), statistics.median(firsts[name])
            last[name] = Measured(speed, first, tokens, passes, texts)
    return last


def compare(clients: int, name: str, found: Mapping[str, Measured], alone: Mapping[str, Measured]) -> Row:
    """Our server beside another one."""
    own, other = found[OURS], found[name]
    same = {
        side: sum(one == two for one, two in zip(found[side].texts, alone[side].texts, strict=True))
        for side in (OURS, name)
    }
    return Row(
        name=f"server_vs_{name}",
        clients=clients,
        ours=round(own.speed, 1),
        baseline=round(other.speed, 1),
        unit="tokens/s",
        ratio=round(own.speed / other.speed, 2),
        first=round(1000 * own.first),
        baseline_first=round(1000 * other.first),
        first_ratio=round(other.first / own.first, 2),
        tokens=own.tokens,
        baseline_tokens=other.tokens,
        passes=own.passes,
        tokens_per_pass=round(own.tokens / max(1, own.passes), 2),
        same=f"{same[OURS]} of {len(own.texts)}",
        baseline_same=f"{same[name]} of {len(other.texts)}",
    )


def rows(servers: Mapping[str, Server], plan: Plan, counts: Sequence[int]) -> Iterator[Row]:
    """For every number of clients, all baselines; one client comes first."""
    tokenizer = AutoTokenizer.from_pretrained(require_base(), trust_remote_code=False)
    alone: dict[str, Measured] = {}
    for clients in counts:
        found = race(servers, plan, clients, tokenizer)
        alone = alone or found
        for name in servers:
            if name != OURS:
                yield compare(clients, name, found, alone)


def table(found: Sequence[Row]) -> str:
    """Rows in Markdown."""
    lines = [
        "| row | clients | ours | baseline | ratio | first text | baseline's | ratio | tokens | tokens/pass | same |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.name} | {row.clients} | {row.ours} {row.unit} | {row.baseline} {row.unit} | {row.ratio:.2f} | "
        f"{row.first} ms | {row.baseline_first} ms | {row.first_ratio:.2f} | {row.tokens}, {row.baseline_tokens} | "
        f"{row.tokens_per_pass:.2f} | {row.same}, {row.baseline_same} |"
        for row in found
    ]
    return "\n".join(lines)


@click.command()
@click.option("--clients", "counts", type=int, multiple=True, default=(1, 8, 32), show_default=True)
@click.option("--prompts", default=32, show_default=True, help="How many of the held-out prompts.")
@click.option("--tokens", default=48, show_default=True, help="Most tokens an answer.")
@click.option("--rounds", default=3, show_default=True, help="Medians are over this many.")
@click.option("--without", "left_out", multiple=True, help="A server that does not take part.")
@click.option("--gguf", type=click.Path(path_type=Path), help="GGUF file for llama.cpp.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows here.")
@click.option("--markdown", "page", type=click.Path(path_type=Path), help="Put the table into this page.")
def main(
    counts: tuple[int, ...],
    prompts: int,
    tokens: int,
    rounds: int,
    left_out: tuple[str, ...],
    gguf: Path | None,
    path: Path | None,
    page: Path | None,
) -> None:
    """Measure and print a table."""
    show(machine())
    plan, found = Plan(HELD_OUT[:prompts], tokens, rounds), list[Row]()
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(running(command, model))
            for name, (command, model) in commands(torch.get_num_threads(), find_gguf(gguf, show)).items()
            if name not in left_out
        }
        for name, server in servers.items():
            # Ours loads its model when it is asked for it.
            ask(name, server, Plan(HELD_OUT[-1:], 4, 1), 1)
        for row in rows(servers, plan, sorted({1, *counts})):
            found.append(row)
            keep(found, path)
    show("", table(found))
    if page is not None:
        head = f"{measured()} {len(plan.prompts)} prompts, at most {tokens} tokens, rounds: {rounds}."
        put(page, "serving", f"{head}\n\n{table(found)}")


if __name__ == "__main__":
    main()
