"""When a block ends, when an answer is clear, and what need not be forwarded: pure functions.

Sources: AdaBlock, lgxi24/AdaBlock-dLLM 491b205 `llada/generate_adablock.py` (arXiv 2509.26432);
Prophet, pixeli99/Prophet 460afe4 `generate_earlyexit.py` (arXiv 2508.19982); DPad,
Crys-Chen/DPad 461b36e `llada/generate_dropout.py` (arXiv 2508.14148).
"""

from collections.abc import Collection
from collections.abc import Sequence

import torch
from torch import Tensor

#: AdaBlock looks for a delimiter in this share of the answer.
DELIMITER_WINDOW = 0.25
#: Prophet's phases end here, in shares of the answer.
PHASES = (0.33, 0.67)

Thresholds = tuple[float, float, float]


def delimiter_window(answer: int, remaining: int) -> int:
    """How many positions from a block's beginning are searched for a delimiter."""
    return min(int(DELIMITER_WINDOW * answer), remaining)


def adaptive_length(
    tokens: Sequence[int], confidence: Tensor, delimiters: Collection[int], threshold: float
) -> int | None:
    """How long a block is that ends with its surest delimiter; None if none is at least as sure as `threshold`.

    :param tokens: what is predicted from the block's beginning on.
    :param confidence: the probability [len(tokens)] of each.
    """
    found = [index for index, token in enumerate(tokens) if token in delimiters]
    if not found:
        return None
    best = max(found, key=lambda index: (float(confidence[index]), -index))
    return best + 1 if float(confidence[best]) >= threshold else None


def mean_gap(logits: Tensor) -> float:
    """By how much the first token leads the second, in logits, on average over N positions; logits [N, V]."""
    best = torch.topk(logits.float(), 2, dim=-1).values
    return float((best[:, 0] - best[:, 1]).mean())


def commits_early(gap: float, progress: float, thresholds: Thresholds) -> bool:
    """Whether the answer is clear enough to be written at once.

    :param progress: the share of the answer that is committed.
    :param thresholds: the gap that is enough in the first, the second and the last third.
    """
    return gap >= thresholds[sum(progress >= end for end in PHASES)]


def confident_end(tokens: Sequence[int], confidence: Tensor, stop_ids: Collection[int], threshold: float) -> int | None:
    """Index of the first end of text that is at least as sure as `threshold`; confidence [len(tokens)]."""
    sure = (index for index, token in enumerate(tokens) if token in stop_ids and float(confidence[index]) >= threshold)
    return next(sure, None)


def suffix_window(stop: int, window: int, end: int, length: int) -> list[int]:
    """Positions to forward: everything up to the block's `stop`, `window` more, and given text behind the answer.

    :param end: where the answer ends.
    :param length: of the whole canvas.
    """
    return [*range(min(stop + window, end)), *range(end, length)]
