"""Measuring what passes of a model cost here: once, quickly, and with the very calls that decoding makes."""

import time
from collections.abc import Callable
from collections.abc import Mapping

import torch

from dllm_plugins.decoding.answering import predicted
from dllm_plugins.denoisers.base import FullDenoiser
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.costs import Costs
from dllm_plugins.prediction import GREEDY
from dllm_plugins.prediction import predict

#: How many rows are measured; what lies between is interpolated.
CLEAN = (1, 2, 3, 4, 6, 8, 12, 16, 32)
OPEN = (1, 2, 4, 8, 16)
#: Tokens in front of the rows: those of a short chat.
PREFIX = 64
#: No further round begins once so many seconds are over.
BUDGET = 1.0
_ROUNDS = 6
_DRAFT = "draft"


def measure(denoiser: FullDenoiser) -> Costs:
    """What passes cost: least wall-clock time of a few rounds, in which all kinds take turns.

    On a row of its own, which is gone afterwards. About a second of work; one round where that takes longer.
    """
    spec = denoiser.spec
    row = denoiser.open_row()
    try:
        tokens = [(7919 * place) % spec.vocabulary for place in range(PREFIX + CLEAN[-1])]
        denoiser.forward([Segment(row, tokens[:PREFIX], range(PREFIX))])
        denoiser.freeze(row, PREFIX)
        runs = _runs(denoiser, row, tokens[PREFIX:])
        found = _least(runs)
    finally:
        denoiser.close_row(row)
    clean = tuple((rows, found["clean", rows]) for rows in CLEAN)
    opened = tuple((rows, found["open", rows]) for rows in OPEN)
    return Costs(clean, opened, found[_DRAFT, 1])


def _runs(denoiser: FullDenoiser, row: int, tokens: list[int]) -> Mapping[tuple[str, int], Callable[[], object]]:
    """What is timed, by kind and number of rows."""
    mask = denoiser.spec.mask_id

    def read(hidden: torch.Tensor) -> list[int]:
        # To the list, so that an accelerator is waited for.
        found: list[int] = predicted(denoiser, hidden, [GREEDY] * len(hidden)).token.tolist()
        return found

    def clean(rows: int) -> object:
        made = denoiser.forward([Segment(row, tokens[:rows], range(PREFIX, PREFIX + rows), wanted=range(rows))])
        return read(made[0])

    def opened(rows: int) -> object:
        first = Segment(row, tokens[:1], (PREFIX,), wanted=(0,))
        places = range(PREFIX, PREFIX + rows)
        group = Segment(row, [mask] * rows, places, noisy=True, causal=False, behind=((0, 1),), wanted=range(rows))
        return read(denoiser.forward([first, group])[0])

    [hidden] = denoiser.forward([Segment(row, tokens[:1], (PREFIX,), wanted=(0,))])
    left = torch.tensor([tokens[:2]])

    def draft() -> object:
        logits, ids = denoiser.draft_logits(hidden, left)
        found = predict(logits, [GREEDY], ids)
        return found.token.tolist(), found.probability.tolist()

    runs: dict[tuple[str, int], Callable[[], object]] = {}
    for rows in CLEAN:
        runs["clean", rows] = lambda rows=rows: clean(rows)  # type: ignore[misc]
    for rows in OPEN:
        runs["open", rows] = lambda rows=rows: opened(rows)  # type: ignore[misc]
    return runs | {(_DRAFT, 1): draft}


def _least(runs: Mapping[tuple[str, int], Callable[[], object]]) -> dict[tuple[str, int], float]:
    """Milliseconds of each."""
    began, found = time.perf_counter(), dict.fromkeys(runs, float("inf"))
    for _ in range(_ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            found[name] = min(found[name], 1000 * (time.perf_counter() - start))
        if time.perf_counter() - began > BUDGET:
            break
    return found
