"""The block decoder of :mod:`dllm_kernels` as a denoiser: Llama, Qwen2 and Qwen3 shapes, row-invariant.

Rows of a pass share their products, whatever their lengths; each attends to its own keys.
There is one copy of the weights: the model shares them, or gives them away.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from functools import partial
from typing import TYPE_CHECKING
from typing import Any
from typing import cast

import torch
from torch import Tensor

from dllm_kernels import decoder as decoding
from dllm_kernels.blocks import Kind
from dllm_kernels.decoder import Part
from dllm_kernels.decoder import Store
from dllm_kernels.decoder.plain import PlainDecoder
from dllm_kernels.dispatch import KernelError
from dllm_kernels.dispatch import kernel
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import PrefixState
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.rounded import in_blocks
from dllm_plugins.denoisers.rows import Rows
from dllm_plugins.denoisers.rows import wanted_of
from dllm_plugins.denoisers.visibility import linked
from dllm_plugins.denoisers.visibility import visible
from dllm_plugins.errors import CheckpointError
from dllm_plugins.messages import message
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import Predictions

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class DecoderDenoiser(Rows[Store]):
    """A block decoder behind the protocol :class:`~dllm_plugins.denoisers.base.Denoiser`.

    :param spec: its `numerics` is set to what the decoder promises.
    :param int8: whether the decoder's weights are; the spec's `name` and `numerics` say it.
    """

    def __init__(self, decoder: decoding.Decoder, spec: ModelSpec, int8: bool = False) -> None:
        super().__init__()
        numerics: Any = "row-invariant" if decoder.row_invariant else "approximate"
        form = decoder.weights.form
        self.spec = replace(spec, numerics=numerics, weights=form, batched=not decoder.row_invariant)
        if int8:
            name, numerics = f"{spec.name} with int8 weights", f"{numerics} int8"
            self.spec = replace(self.spec, name=name, numerics=numerics, weights="int8")
        elif decoder.weights.coded:
            name, numerics = f"{spec.name} with int8 activations", f"{numerics} int8"
            self.spec = replace(self.spec, name=name, numerics=numerics)
        self.decoder = decoder

    def open_row(self, prefix: PrefixState | None = None, length: int = 0) -> int:
        """A handle with an empty prefix, or with a copy of the first `length` positions of a kept one."""
        if prefix is None:
            return self._open(self.decoder.new_store())
        return self._open(cast(Store, prefix).copy(length))

    def hold(self, row: int, indices: Sequence[int]) -> None:
        """Keep these keys of the row's first segment of the last pass; see the protocol."""
        self._rows[row].hold(indices)

    def release(self, row: int) -> None:
        """Forget the held keys."""
        self._rows[row].release()

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment]) -> list[Tensor]:
        """One pass; see :meth:`~dllm_plugins.denoisers.base.Denoiser.forward`."""
        parts: list[Part] = []
        firsts: dict[int, int] = {}
        begin = 0
        for call in linked(segments):
            row = call[0].row
            store = self._rows[row]
            firsts.setdefault(row, len(call[0].tokens))
            seen = visible(call, 0)
            parts.append(Part(store, slice(begin, begin + len(seen)), seen))
            begin += len(seen)
        for part in parts:
            part.store.reserve(len(part.seen))
        # On the CPU, where decoders look at them: elsewhere they would have to wait for the device.
        tokens = torch.tensor([token for segment in segments for token in segment.tokens])
        positions = torch.tensor([place for segment in segments for place in segment.positions])
        noisy = None
        if self.decoder.weights.low_rank is not None:
            noisy = torch.tensor([segment.noisy for segment in segments for _ in segment.tokens])
        hidden = self.decoder.forward(tokens, positions, parts, noisy)
        self._shared = frozenset(firsts) if len(firsts) > 1 else frozenset()
        for row, count in firsts.items():
            self._rows[row].pend(count)
        return wanted_of(hidden, segments)

    def keys_bytes(self, rows: Sequence[int]) -> int:
        """See :class:`~dllm_plugins.denoisers.base.FullDenoiser`."""
        return sum(map(self.decoder.new_store().room, rows)) * self._position_bytes

    @cached_property
    def _position_bytes(self) -> int:
        store = self.decoder.new_store()
        store.reserve(1)
        return store.nbytes // store.capacity

    def timings(self) -> dict[str, float]:
        """See :class:`~dllm_plugins.denoisers.base.FullDenoiser`; empty where the decoder does not tell."""
        return self.decoder.timings()

    def logits(self, hidden: Tensor, left: Tensor | None = None) -> Tensor:
        """Logits [N, vocabulary]; see :meth:`~dllm_plugins.denoisers.base.Denoiser.logits`."""
        return self.decoder.logits(hidden)

    def unmask(self, hidden: Tensor, draws: Sequence[Draw], left: Tensor | None = None) -> Predictions | None:
        """See :class:`~dllm_plugins.denoisers.base.FullDenoiser`; where the decoder can and no draw is cut."""
        if any(draw.top_k is not None or draw.top_p is not None for draw in draws):
            return None
        return self.decoder.unmask(
            self.refined(hidden, left),
            [draw.temperature for draw in draws],
            [draw.gumbel if draw.temperature > 0 else None for draw in draws],
            [draw.uniform if draw.temperature > 0 else None for draw in draws],
        )

    def refined(self, hidden: Tensor, left: Tensor | None) -> Tensor:
        """Hidden states as the head takes them; models with a draft head change them by what is on the left."""
        return hidden

    def draft_logits(self, hidden: Tensor, left: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same: there is no shortlist."""
        return self.logits(hidden), None


class KernelDenoiser(DecoderDenoiser):
    """A model of transformers on the best block decoder.

    :param model: a Llama, Qwen2 or Qwen3 with its head. Where the decoder packs its weights,
        the model gives its own away, and its own forward raises afterwards.
    :param weights: "int8" quantises linear layers and head, a kind of GGUF's blocks such as "Q4_0" rounds all
        matrices into them; what is lossless then is so with respect to the quantised model only, and the
        spec's `name` says it.
    :param keep_model: leave the model usable all the same, at the price of a second copy.
    :raises CheckpointError: for a model the kernel does not compute.
    """

    def __init__(
        self, model: "PreTrainedModel", spec: ModelSpec, *, weights: str = "auto", keep_model: bool = False
    ) -> None:
        int8, rounded = weights == "int8", weights in Kind.__members__
        taken = partial(_weights_of, model, Kind[weights] if rounded else None, keep_model)
        give = None if keep_model or rounded else partial(decoding.release, model)
        if rounded:
            spec = replace(spec, name=f"{spec.name} with {weights} weights")
        super().__init__(best_decoder(taken, spec, int8=int8, give=give), spec, int8)
        self.model = model


def _weights_of(model: "PreTrainedModel", kind: Kind | None, keep_model: bool) -> decoding.AnyWeights:
    """A model's weights, in blocks of a kind; in these it has none afterwards, unless it is kept."""
    weights = decoding.take_weights(model)
    if kind is None:
        return cast(decoding.AnyWeights, weights)
    if not keep_model:
        decoding.release(model)
    return in_blocks(weights, kind, empty=not keep_model)


def best_decoder(
    weights: Callable[[], decoding.AnyWeights],
    spec: ModelSpec,
    *,
    int8: bool = False,
    give: Callable[[], None] | None = None,
) -> decoding.Decoder:
    """The best decoder for these weights on this machine.

    :param int8: with linear layers and head quantised.
    :param give: lets go of the weights' other owners; called if the decoder copies the weights,
        which are then emptied one by one. None if they stay in use.
    :raises CheckpointError: if none computes them.
    """
    name = decoding.INT8_KERNEL if int8 else decoding.KERNEL
    try:
        found = weights()
        head = found.head
        chosen: type[decoding.Decoder] = kernel(name, head.device, head.dtype, found.shape.sizes())
        if give is not None and chosen.copies:
            give()
            found = replace(found, given=True)
        return chosen(found)
    except KernelError as error:
        raise CheckpointError(message("{backend}='kernels' does not fit {}: {}", spec.name, error)) from error


def plain_decoder(weights: decoding.AnyWeights, spec: ModelSpec) -> decoding.Decoder:
    """The decoder in torch alone, with each layer where its weights are.

    :raises CheckpointError: for weights it does not compute.
    """
    try:
        return PlainDecoder(weights)
    except KernelError as error:
        raise CheckpointError(f"{spec.name}: {error}") from error
