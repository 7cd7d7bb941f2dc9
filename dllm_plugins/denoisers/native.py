"""transformers' own classes as denoisers: bidirectional models, the whole sequence in every pass.

Sequences of a pass are forwarded one by one: padding would change how products are
tiled, and with that the last bits of a row's logits (docs/design.md, Numerics).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import PrefixState
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import OptionError


@dataclass(slots=True)
class NoPrefix:
    """What is kept of a row without a cache."""

    length: int = 0


class NativeDenoiser:
    """See :class:`~dllm_plugins.denoisers.base.Denoiser`. A causal class run with a mask that hides nothing.

    :param model: with a body in `model.base_model` and its head in `get_output_embeddings()`.
    """

    def __init__(self, model: PreTrainedModel, spec: ModelSpec) -> None:
        self.spec = spec
        self.model = model
        self._body: Any = model.base_model
        self._head: Any = model.get_output_embeddings()
        self._rows: set[int] = set()
        self._opened = 0

    def open_row(self, prefix: PrefixState | None = None, length: int = 0) -> int:
        """A handle; nothing is cached."""
        self._opened += 1
        self._rows.add(self._opened)
        return self._opened

    def close_row(self, row: int) -> NoPrefix:
        """Forget the handle."""
        self._rows.remove(row)
        return NoPrefix()

    @property
    def open_rows(self) -> int:
        """Rows being decoded."""
        return len(self._rows)

    def freeze(self, row: int, count: int) -> None:
        """Nothing can be frozen.

        :raises OptionError: always: a strategy with a cache does not fit this model.
        """
        raise OptionError(f"{self.spec.name} has no prefix cache; choose a mode among {', '.join(self.spec.modes)}")

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment]) -> list[Tensor]:
        """One pass; see :meth:`~dllm_plugins.denoisers.base.Denoiser.forward`."""
        return [self._one(segment) for segment in segments]

    def _one(self, segment: Segment) -> Tensor:
        assert not (segment.causal or segment.behind), "only whole canvases can be forwarded without a cache"
        device = self._body.get_input_embeddings().weight.device
        tokens = torch.tensor([list(segment.tokens)], device=device)
        positions = torch.tensor([list(segment.positions)], device=device)
        length = tokens.shape[1]
        # transformers passes a mask of four dimensions on as it is; zeros hide nothing.
        mask = torch.zeros(1, 1, length, length, dtype=self.model.dtype, device=device)
        hidden: Tensor = self._body(
            input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state[0]
        return hidden[list(segment.wanted)]

    @torch.inference_mode()
    def logits(self, hidden: Tensor, left: Tensor | None = None) -> Tensor:
        """Logits [N, vocabulary]; see :meth:`~dllm_plugins.denoisers.base.Denoiser.logits`."""
        found: Tensor = self._head(hidden)
        return found

    def draft_logits(self, hidden: Tensor, left: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same: there is no shortlist."""
        return self.logits(hidden), None
