"""One more pass over the text of a row that has ended: what the model says of each token where all are known."""

from collections.abc import Sequence

from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.said import said_of
from dllm_plugins.denoisers.base import FullDenoiser
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import OptionError
from dllm_plugins.events import TokenLogprob
from dllm_plugins.messages import message

KIND = "look"
#: Positions whose logits are built at once.
_TOGETHER = 64
#: Attention under which the row at p - 1 predicts position p of known text.
_LEFTWARDS = ("causal", "causal context, bidirectional block")
_BOTH_WAYS = ("bidirectional", "own")
_IN_BLOCKS = "block-causal"


def check_final(config: SamplingConfig, spec: ModelSpec) -> None:
    """Refuse a last look that a model cannot take.

    :raises OptionError: naming the remedy.
    """
    if config.logprobs_at == "final" and spec.attention not in (*_LEFTWARDS, *_BOTH_WAYS, _IN_BLOCKS):
        raise OptionError(
            message(
                "{logprobs_at}='final' does not fit {}, which says nothing of tokens that it knows; leave it out, for "
                "those of the pass that committed each token",
                spec.name,
            )
        )


def look_again(
    canvas: Canvas, answer: Sequence[int], spec: ModelSpec, denoiser: FullDenoiser
) -> tuple[tuple[TokenLogprob, ...], dict[str, int], int]:
    """What is said of each token of the answer, the passes that took by kind, and their rows.

    The prompt is forwarded anew: what is kept of it are keys, and no hidden states.
    """
    handle = denoiser.open_row()
    try:
        segment = _segment(canvas, len(answer), spec, handle)
        [hidden] = denoiser.forward([segment])
        passes = dict(denoiser.rounds(handle, KIND))
    finally:
        denoiser.close_row(handle)
    count = canvas.row.config.logprobs or 0
    # Logits of a long answer at once would be as large as the model.
    logits = (row for part in hidden.split(_TOGETHER) for row in denoiser.logits(part))
    found = tuple(said_of(row, token, count, spec.mask_id) for row, token in zip(logits, answer, strict=True))
    return found, passes, len(segment.tokens)


def _segment(canvas: Canvas, count: int, spec: ModelSpec, handle: int) -> Segment:
    """The final text under the family's attention, its answer's positions wanted."""
    row, answer = canvas.row, range(canvas.prompt, canvas.prompt + count)
    if spec.attention in _LEFTWARDS:
        # Of what stands behind the answer nothing is seen.
        tokens = row.tokens[: answer.stop]
        return Segment(handle, tokens, range(len(tokens)), wanted=[position - 1 for position in answer])
    tokens, length = canvas.tokens, row.config.block_length or spec.block_length
    return Segment(
        handle,
        tokens,
        range(len(tokens)),
        noisy=True,
        causal=False,
        wanted=[max(position - int(spec.shifted), 0) for position in answer],
        groups=[position // length for position in range(len(tokens))] if spec.attention == _IN_BLOCKS else None,
    )
