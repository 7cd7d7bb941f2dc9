"""llama.cpp as a denoiser: cached prefixes and whole canvases of ordinary and diffusion GGUF files.

The protocol's hidden states are here the logits themselves: llama.cpp runs the head in the
same call. A pass is one or more calls (:mod:`~dllm_plugins.llama_cpp.calls`), which
rows share where their lengths allow it; the engine counts each of them.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import GgufError
from dllm_plugins.llama_cpp.calls import Planning
from dllm_plugins.llama_cpp.context import Context
from dllm_plugins.llama_cpp.model import GgufModel
from dllm_plugins.llama_cpp.passes import Passes
from dllm_plugins.llama_cpp.sharing import LOSSLESS
from dllm_plugins.llama_cpp.sharing import fewest_of_equal_bits

#: Modes whose passes llama.cpp cannot compute.
UNABLE = {
    "s2d2": "llama.cpp cannot hide a draft from the open position in its place; take mode 's2d2_ar', or the checkpoint "
    "itself",
    "wino": "llama.cpp cannot hide single tokens from one another; take another mode, or the checkpoint on torch",
}


class LlamaCppDenoiser(Passes):
    """See :class:`~dllm_plugins.denoisers.base.Denoiser`.

    :param model: closed together with this.
    :param spec: its `numerics` becomes "approximate": rounding depends on how many tokens a call has, though
        not on the company of other rows.
    :param cache: type of keys and values, "F16" or "F32".
    :param causal: whether every pass is of causal text. Its numerics are "row-invariant" then, if that is measured.
    :raises CheckpointError: if the file has fewer ids than the spec.
    :raises GgufError: if the file keeps no keys, but the spec has an exact cache.
    """

    def __init__(self, model: GgufModel, spec: ModelSpec, cache: str = "F16", *, causal: bool = False) -> None:
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
        promises = {mode: found for mode in spec.modes if (found := LOSSLESS.get(spec.samplers.get(mode, mode)))}
        measured = (causal or promises) and model.has_memory
        fewest = fewest_of_equal_bits(self.context, self._shelf) if measured else None
        self.planning = Planning(pads=fewest == 2)
        refused = {mode: found for mode in spec.modes if (found := UNABLE.get(spec.samplers.get(mode, mode)))}
        refused |= promises if fewest is None else {}
        self.spec = replace(
            spec,
            numerics="row-invariant" if causal and fewest is not None else "approximate",
            modes=tuple(mode for mode in spec.modes if mode not in refused),
            refused=refused,
            holds=spec.holds and model.has_memory,
            holds_prefix_only=True,
        )

    def width(self, segment: Segment) -> int:
        """The vocabulary's size: a file may have more ids than its tokenizer."""
        return self.spec.vocabulary

    def rounds(self, row: int, kind: str) -> Mapping[str, int]:
        """How many calls the row took part in in the last pass, by kind; `kind` is the whole pass's.

        Those for text that others of its segments stand behind are "freeze", or "prefill" without a prefix.
        """
        return self._rounds(row, {False: kind, True: "freeze" if self._rows[row].base else "prefill"})

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
