"""Mode diffusion: a token is drawn again when its left neighbour changes; no word is doubled by the canvas."""

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas


def places_of(canvas: Canvas) -> list[int]:
    """Where tokens stand behind the final text."""
    return [place for place in range(len(canvas.row.tokens), canvas.end) if canvas.tokens[place] != canvas.mask]


def test_only_clean_rows_say_the_same_token_twice(tiny: Model) -> None:
    """Equal neighbours end at a frontier, and settled tokens were reopened on the way."""
    reopened = doubled_by_base = 0
    for seed in range(12):
        engine = tiny.engine()
        config = SamplingConfig(
            mode="diffusion", threshold=0.08, max_new_tokens=80, temperature=0.5 * (seed % 2), seed=seed
        )
        number = engine.admit(Request([5 + seed, 40, 7], config))
        running = engine._jobs[number].running
        row, canvas = running.row, running.canvas
        frontiers = set()
        while engine.active:
            before, settled = len(row.tokens), places_of(canvas)
            frontiers.add(before)
            engine.step()
            reopened += len([place for place in settled if place >= len(row.tokens) and canvas.open([place])])
        doubled = [place for place in range(4, len(row.tokens)) if row.tokens[place] == row.tokens[place - 1]]
        assert set(doubled) <= frontiers
        doubled_by_base += len(doubled)
    assert reopened > 0
    assert doubled_by_base > 0
