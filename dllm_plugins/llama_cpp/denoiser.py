"""llama.cpp as a denoiser: cached prefixes and whole canvases of ordinary and diffusion GGUF files.

The protocol's hidden states are here the logits themselves: llama.cpp runs the head in the
same call. A pass is one or more calls (:mod:`~dllm_plugins.llama_cpp.calls`), which
rows share where their lengths allow it; the engine counts each of them.
"""

from collections import Counter
from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.visibility import linked
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import GgufError
from dllm_plugins.llama_cpp.batch import Run
from dllm_plugins.llama_cpp.calls import Step
from dllm_plugins.llama_cpp.calls import lane_of
from dllm_plugins.llama_cpp.context import Context
from dllm_plugins.llama_cpp.context import Rows
from dllm_plugins.llama_cpp.model import GgufModel
from dllm_plugins.llama_cpp.rows import LlamaRows
from dllm_plugins.llama_cpp.running import Rounds
from dllm_plugins.llama_cpp.running import Running
from dllm_plugins.llama_cpp.sharing import LOSSLESS
from dllm_plugins.llama_cpp.sharing import company_changes_nothing
from dllm_plugins.llama_cpp.sharing import fewest_of_equal_bits

#: Strategies whose passes llama.cpp cannot compute.
UNABLE = {
    "wino": "llama.cpp cannot hide single tokens from one another; take another mode, or the checkpoint itself on torch"
}


class LlamaCppDenoiser(LlamaRows):
    """See :class:`~dllm_plugins.denoisers.base.Denoiser`.

    :param model: closed together with this.
    :param spec: its `numerics` becomes "approximate": rounding depends on how many tokens a call has, though
        not on the company of other rows.
    :param cache: type of keys and values, "F16" or "F32".
    :raises CheckpointError: if the file has fewer ids than the spec.
    :raises GgufError: if the file keeps no keys, but the spec has an exact cache.
    """

    def __init__(self, model: GgufModel, spec: ModelSpec, cache: str = "F16") -> None:
        if spec.vocabulary > model.vocabulary:
            raise CheckpointError(
                f"{model.path} has {model.vocabulary} token ids, but {spec.name} {spec.vocabulary}; convert it again"
            )
        if spec.cache == "exact" and not model.has_memory:
            raise GgufError(
                f"{model.path} ({model.header.architecture}) keeps no keys, but {spec.name} freezes blocks; "
                f"convert it with the architecture of its family"
            )
        super().__init__(model, Context(model, cache))
        self._counts: Counter[tuple[int, bool]] = Counter()
        promises = {mode: found for mode in spec.modes if (found := LOSSLESS.get(spec.samplers.get(mode, mode)))}
        fewest = fewest_of_equal_bits(self.context, self._shelf) if promises and model.has_memory else None
        #: Whether single tokens are decoded in company, so that they are rounded as several are.
        self._pads = fewest == 2
        refused = {mode: found for mode in spec.modes if (found := UNABLE.get(spec.samplers.get(mode, mode)))}
        refused |= promises if fewest is None else {}
        self.spec = replace(
            spec,
            numerics="approximate",
            modes=tuple(mode for mode in spec.modes if mode not in refused),
            refused=refused,
            holds=spec.holds and model.has_memory,
            holds_prefix_only=True,
        )

    def forward(self, segments: Sequence[Segment]) -> list[Tensor]:
        """One pass; see :meth:`~dllm_plugins.denoisers.base.Denoiser.forward`. Returns logits [len(wanted), V].

        :raises GgufError: for segments that llama.cpp cannot compute.
        """
        rounds, number, last = Rounds(self._shelf, self._call, self.key, lambda: self.shares), 0, None
        self._counts.clear()
        for call in linked(segments):
            handle = call[0].row
            row = self._rows[handle]
            lane = lane_of(list(enumerate(call, number)), row.length)
            number += len(call)
            if handle == last:
                rounds.wait(handle, lane, row.stream)
                continue
            last = handle
            row.begin(len(call[0].tokens))
            if row.stream is not None:
                self.context.cut(row.stream, row.base)
            rounds.start(handle, lane, row.stream)
        found = rounds.run()
        return [self._wanted(segment, found[number]) for number, segment in enumerate(segments)]

    def key(self, step: Step) -> Hashable:
        """Steps for which this is equal may share a call."""
        return step.causal, len(step.tokens)

    @cached_property
    def shares(self) -> bool:
        """Whether rows may share calls; measured when they first could."""
        return company_changes_nothing(self.context, self._shelf)

    def _call(self, part: Sequence[tuple[Running, Step]]) -> list[Rows]:
        self._counts.update({(running.row, step.context) for running, step in part})
        return self.decode([(running.stream or 0, step) for running, step in part])

    def decode(self, part: Sequence[tuple[int, Step]]) -> list[Rows]:
        """Rows [len(wanted), V] of steps that share a call; each with its stream."""
        if self._pads and len(part[0][1].tokens) == 1:
            return [self._single(*one) for one in part]
        runs = [Run(stream, step.begin, step.tokens, wanted=step.wanted) for stream, step in part]
        return self.context.decode(runs, causal=part[0][1].causal)

    def _single(self, stream: int, step: Step) -> Rows:
        """One token's row, with the token once more behind it for company."""
        rows = self.context.decode([Run(stream, step.begin, [*step.tokens] * 2, wanted=(0, 1))], causal=True)[0]
        self.context.cut(stream, step.begin + 1)
        return rows[: len(step.wanted)]

    def _wanted(self, segment: Segment, found: Sequence[tuple[Step, Rows]]) -> Tensor:
        """The wanted rows in the segment's order; a step may have one more than was wanted."""
        step, rows = found[0]
        if len(found) > 1 or tuple(step.wanted) != tuple(segment.wanted):
            rows = np.concatenate([rows for _, rows in found])
            places = [step.offset + index for step, _ in found for index in step.wanted]
            where = {place: index for index, place in enumerate(places)}
            rows = rows[[where[place] for place in segment.wanted]]
        return torch.from_numpy(rows[:, : self.spec.vocabulary])

    def rounds(self, row: int, kind: str) -> Mapping[str, int]:
        """How many calls the row took part in in the last pass, by kind; `kind` is the whole pass's.

        Those for text that others of its segments stand behind are "freeze", or "prefill" without a prefix.
        """
        context = "freeze" if self._rows[row].base else "prefill"
        found = Counter({kind: self._counts[row, False]})
        found[context] += self._counts[row, True]
        return {name: count for name, count in found.items() if count}

    def hold(self, row: int, indices: Sequence[int]) -> None:
        """Keep these keys of the row's first segment of the last pass: only those right behind the prefix can be.

        :raises OptionError: for any others.
        """
        self._rows[row].hold(list(indices), self.spec.name)

    def release(self, row: int) -> None:
        """Forget the held keys."""
        self._rows[row].held = 0

    def logits(self, hidden: Tensor, left: Tensor | None = None) -> Tensor:
        """The same: llama.cpp's head ran in the pass."""
        return hidden

    def draft_logits(self, hidden: Tensor, left: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same: there is no shortlist."""
        return hidden, None
