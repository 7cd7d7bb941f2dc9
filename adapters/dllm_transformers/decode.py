"""The loop of the strategy: events to streamers, stopping criteria to the engine."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import StoppingCriteria

from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Finish
from dllm_plugins.request import Request
from dllm_plugins.sharing import SharedModel
from dllm_transformers.delivery import Delivery


class _Criteria:
    """Stopping criteria asked token by token, as AR decoding would, however many a pass commits."""

    def __init__(self, criteria: Sequence[StoppingCriteria], prompts: Tensor, inside: Sequence[int]) -> None:
        self._criteria = criteria
        length = prompts.shape[1]
        self._ids = [row[: length - count] for row, count in zip(prompts, inside, strict=True)]
        self._length = length

    def keep(self, row: int, tokens: Sequence[int]) -> int | None:
        """How many of these tokens the row keeps if a criterion ends it; None if it goes on."""
        if not self._criteria:
            return None
        for place, token in enumerate(tokens):
            self._ids[row] = torch.cat([self._ids[row], torch.tensor([token])])
            ids = self._ids[row][None]
            if ids.shape[1] <= self._length:
                continue
            # A criterion that looks at scores fails loudly: there are none while a canvas is open.
            if any(bool(torch.as_tensor(criterion(ids, None)).any()) for criterion in self._criteria):
                return place + 1
        return None


def decode(
    shared: SharedModel,
    requests: Sequence[Request],
    prompts: Tensor,
    criteria: Sequence[StoppingCriteria],
    target: Delivery,
    inside: Sequence[int],
) -> list[Finish]:
    """Decode all rows together.

    If a streamer or a criterion raises, all rows are freed and the error goes on.

    :param prompts: int64 [batch, length], padding included, as criteria expect them.
    :param inside: how many tokens of each answer lie inside its prompt; streamers and criteria have those already.
    """
    asked, done = _Criteria(criteria, prompts, inside), dict[int, Finish]()
    told = [0] * len(requests)
    batch = shared.stream_batch(requests)
    events = iter(batch)
    try:
        for row, event in events:
            if isinstance(event, Commit):
                kept = asked.keep(row, event.tokens)
                new = event.tokens[max(0, inside[row] - told[row]) : kept]
                if new:
                    target.commit(row, new)
                told[row] += len(event.tokens[:kept])
                if kept is not None:
                    done[row] = batch.stop(row, told[row])
                    target.end_row(row)
            elif isinstance(event, Draft):
                target.draft(row, event.tokens[max(0, inside[row] - told[row]) :])
            else:
                if event.stop_token is not None and told[row] >= inside[row]:
                    target.commit(row, [event.stop_token])
                done[row] = event
                target.end_row(row)
    finally:
        events.close()
    target.end()
    return [done[row] for row in range(len(requests))]
