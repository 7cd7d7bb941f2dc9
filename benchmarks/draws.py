"""What drawing a token costs: one number and the inverse distribution, beside a Gumbel number for every id.

Milliseconds a position, and bytes that a row keeps afterwards, of both ways in the same run, and
their ratio: times on a machine change, ratios hardly do.

    python benchmarks/draws.py --vocabulary 126464
"""

import time
from collections.abc import Callable

import click
import torch

from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose
from dllm_plugins.noise import RowNoise
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import predict
from progress import show


def by_gumbel(noise: RowNoise, place: int, vocabulary: int) -> Draw:
    """As autoregressive and speculative text is drawn."""
    return Draw(1.0, gumbel=noise.gumbel(Key(Purpose.NEXT, place), vocabulary))


def by_number(noise: RowNoise, place: int, _vocabulary: int) -> Draw:
    """As open positions are."""
    return Draw(1.0, uniform=float(noise.uniform(Key(Purpose.CANVAS, place), 1)))


def measure(way: Callable[[RowNoise, int, int], Draw], vocabulary: int, positions: int) -> tuple[float, int]:
    """Milliseconds a position, the quickest of all, and bytes that the row's noise keeps."""
    logits = torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(0)) * 3
    noise, seconds = RowNoise(1), list[float]()
    for place in range(positions):
        begin = time.perf_counter()
        predict(logits, [way(noise, place, vocabulary)])
        seconds.append(time.perf_counter() - begin)
    return min(seconds) * 1e3, noise.kept_bytes


@click.command(help=__doc__.splitlines()[0])
@click.option("--vocabulary", type=click.IntRange(2), default=126_464, show_default=True, help="LLaDA's.")
@click.option("--positions", type=click.IntRange(1), default=64, show_default=True, help="How many are drawn each way.")
def main(vocabulary: int, positions: int) -> None:
    """Measure both ways and print a table."""
    torch.set_num_threads(1)
    show(f"| {vocabulary} ids | ms a position | MB kept a row |", "|---|---|---|")
    taken: list[float] = []
    for name, way in {"a Gumbel number for every id": by_gumbel, "one number": by_number}.items():
        milliseconds, kept = measure(way, vocabulary, positions)
        show(f"| {name} | {milliseconds:.2f} | {kept / 1e6:.1f} |")
        taken.append(milliseconds)
    show("", f"one number takes {taken[1] / taken[0]:.2f} times as long")


if __name__ == "__main__":
    main()
