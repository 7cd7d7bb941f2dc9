"""What `steps` counts in a sampler, and how many passes of one block that makes.

A family's own sampler counts as its original does, a general one counts the passes of a block. A number
that cannot be met is refused: it would otherwise be some other number in silence.
"""

from enum import Enum

from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import message


class Counts(Enum):
    """What `steps` are the passes of."""

    #: Of something that any number will do for; the sampler's own field says of what.
    ANYTHING = "anything"
    #: Of one block, so that there are no more than it has positions.
    BLOCK = "block"
    #: Of the whole answer; all of its blocks get as many, which each of them must be able to use.
    ANSWER = "answer"
    #: Likewise, but a block that has fewer open positions than the others leaves out what would commit nothing.
    ANSWER_AT_MOST = "answer, at most"


def passes_of_a_block(counts: Counts, config: SamplingConfig, length: int) -> int | None:
    """How many passes `steps` of a request give a block of `length` positions; None if it says nothing of that.

    :raises OptionError: for a number that cannot be met, with those that can.
    """
    steps, answer = config.steps, config.max_new_tokens
    if steps is None or counts is Counts.ANYTHING:
        return steps
    if counts is Counts.BLOCK:
        return _of_one(steps, length)
    blocks = -(-answer // length)
    last = answer - (blocks - 1) * length
    most = last if counts is Counts.ANSWER or blocks == 1 else length
    if steps % blocks or steps // blocks > most:
        parts = f"one block of {answer}" if blocks == 1 else f"{blocks} blocks of {length}"
        parts += f", the last of {last}" if blocks > 1 and last < length else ""
        fitting = f"from 1 to {most}" if blocks == 1 else f"a multiple of {blocks} from {blocks} to {blocks * most}"
        raise OptionError(
            message(
                "{steps}={} cannot be met: they are the passes of the whole answer, as many for each block, and "
                "{max_new_tokens}={} makes {}; give {}, or another {max_new_tokens} or {block_length}",
                steps,
                answer,
                parts,
                fitting,
            )
        )
    return steps // blocks


def _of_one(steps: int, length: int) -> int:
    if steps > length:
        raise OptionError(
            message(
                "{steps}={} cannot be met: they are the passes of one block, which has {} positions, and each pass "
                "commits one of them at least; give from 1 to {}, or a larger {block_length}",
                steps,
                length,
                length,
            )
        )
    return steps
