"""Mode diffusion: a token is drawn again when its left neighbour changes; no word is doubled by the canvas."""

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas


def positions_of(canvas: Canvas) -> list[int]:
    """Where tokens stand behind the final text."""
    return [
        position for position in range(len(canvas.row.tokens), canvas.end) if canvas.tokens[position] != canvas.mask
    ]


def test_only_clean_rows_say_the_same_token_twice(tiny: Model) -> None:
    """Equal neighbours end at a frontier, and committed tokens were reopened on the way."""
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
            before, committed = len(row.tokens), positions_of(canvas)
            frontiers.add(before)
            engine.step()
            reopened += len(
                [position for position in committed if position >= len(row.tokens) and canvas.open([position])]
            )
        doubled = [
            position for position in range(4, len(row.tokens)) if row.tokens[position] == row.tokens[position - 1]
        ]
        assert set(doubled) <= frontiers
        doubled_by_base += len(doubled)
    assert reopened > 0
    assert doubled_by_base > 0
