"""The block decoder in C++: a whole pass in one call; see compiled/source/decoder.hpp.

Row-invariant by construction: every sum runs over its own inputs in one fixed order, on
any number of threads. Residuals and norms are float32, so in bfloat16 the results are
closer to float32 than those of the reference.
"""

import ctypes
import weakref
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from typing import ClassVar
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.blocks import Weight
from dllm_kernels.compiled import library
from dllm_kernels.compiled import structures
from dllm_kernels.decoder.base import Decoder
from dllm_kernels.decoder.base import Part
from dllm_kernels.decoder.base import Unmasked
from dllm_kernels.decoder.base import noisy_rows
from dllm_kernels.decoder.checks import check_draws
from dllm_kernels.decoder.checks import check_pass
from dllm_kernels.decoder.checks import check_rows
from dllm_kernels.decoder.compiled_store import CompiledStore
from dllm_kernels.decoder.compiled_weights import Packed
from dllm_kernels.decoder.compiled_weights import pack
from dllm_kernels.decoder.rotation import Rotation
from dllm_kernels.decoder.weights import AnyWeights
from dllm_kernels.dispatch import KernelError
from dllm_kernels.dispatch import Shapes
from dllm_kernels.draws import draw


class CompiledDecoder(Decoder):
    """See :class:`~dllm_kernels.decoder.base.Decoder`.

    :param int8: whether the linear layers of the body and the head are quantised; see
        :mod:`dllm_kernels.int8`. Their residual stream is rotated, see
        :mod:`~dllm_kernels.decoder.rotation`; what comes in and goes out is not. Weights with
        `given` set are emptied, and their embedding is rotated in place.
    :raises KernelError: for numbers that int8 cannot hold.
    """

    copies: ClassVar[bool] = False
    row_invariant = True

    @classmethod
    def promises(cls, _device: torch.device, _dtype: torch.dtype, _sizes: Shapes) -> bool:
        """Always."""
        return True

    @torch.inference_mode()
    def __init__(self, weights: AnyWeights, int8: bool = False) -> None:
        self._library = library.load()
        rotation = Rotation(weights.shape.hidden) if int8 else None
        self._packed: Packed = pack(weights, rotation)
        self.weights = weights
        self._narrow = int(weights.dtype == torch.bfloat16)
        self._rotate: Callable[[Tensor], Tensor] | None = None
        if rotation is not None:
            matrix, dtype = rotation.matrix().to(weights.norm.device), weights.dtype
            self._rotate = self.product(matrix.T.to(dtype))
            self._rotate_back = self.product(matrix.to(dtype))
            self._rotate_back_scaled = self.product((weights.norm.float()[:, None] * matrix).to(dtype))
            # Nothing that was given is to stay alive here.
            empty = weights.norm.new_empty(0)
            self.weights = replace(weights, embedding=self._packed.embedding, layers=(), head=empty)
        self._space = self._library.dllm_workspace()
        weakref.finalize(self, self._library.dllm_free_workspace, self._space)
        self._rotary_table = torch.empty(2, 0, len(weights.frequencies))
        self._seconds = (ctypes.c_double * 3)()

    def new_store(self) -> CompiledStore:
        """An empty row."""
        return CompiledStore(self.weights.shape, self.weights.dtype)

    @torch.inference_mode()
    def forward(self, tokens: Tensor, positions: Tensor, parts: Sequence[Part], noisy: Tensor | None = None) -> Tensor:
        """See :class:`~dllm_kernels.decoder.base.Decoder`."""
        rows = len(tokens)
        rotary = self._rotary(check_pass(self.weights, CompiledStore, tokens, positions, parts, noisy))
        hidden = torch.empty(rows, self.weights.shape.hidden, dtype=self.weights.dtype)
        seen = [part.seen.to("cpu", torch.uint8).contiguous() for part in parts]
        own, rounds = self._parts(parts, seen)
        flags = None if noisy is None or noisy_rows(noisy, self.weights) is None else noisy.cpu().contiguous()
        tokens, positions = tokens.cpu().contiguous(), positions.cpu().contiguous()
        call = structures.Pass(
            rows=rows,
            parts=len(parts),
            rounds=rounds,
            threads=torch.get_num_threads(),
            tokens=tokens.data_ptr(),
            positions=positions.data_ptr(),
            cosines=rotary[0].data_ptr(),
            sines=rotary[1].data_ptr(),
            noisy=None if flags is None else flags.data_ptr(),
            part=own,
            hidden=hidden.data_ptr(),
            seconds=self._seconds,
        )
        outcome = self._library.dllm_forward(self._packed.model, call, self._space, self._narrow)
        library.raise_for(outcome, f"a pass over {rows} positions")
        return hidden if self._rotate is None else self._rotate_back_scaled(hidden).to(hidden.dtype)

    @torch.inference_mode()
    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings [..., hidden] of tokens [...] as the model has them, whatever is kept of them."""
        found = self._packed.embedding[tokens]
        if self._rotate is None:
            return found
        return self._rotate_back(found.flatten(0, -2)).view_as(found).to(found.dtype)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits float32 [N, vocabulary] of hidden states [N, hidden]."""
        return self._multiply(self._rotated(hidden), self._packed.head)

    def _rotated(self, hidden: Tensor) -> Tensor:
        """Hidden states as the head takes them."""
        return hidden if self._rotate is None else self._rotate(hidden).to(hidden.dtype)

    @torch.inference_mode()
    def unmask(
        self,
        hidden: Tensor,
        temperatures: Sequence[float],
        noises: Sequence[Tensor | None],
        uniforms: Sequence[float | None] | None = None,
    ) -> Unmasked:
        """Tokens of hidden states [N, hidden] and how sure the model is of them, without logits.

        Greedy positions take the first largest logit, others the first largest of
        logit / temperature + noise in float64, or the first id whose cumulative probability reaches a
        uniform number; see compiled/source/head.hpp.

        :param noises: float64 [vocabulary] standard Gumbel numbers of each position, None where none are used.
        :param uniforms: a number in (0, 1) of each position, None where none is used.
        """
        check_rows(hidden, self._packed.head.inputs, self.weights.norm)
        rows, hidden = len(hidden), self._rotated(hidden).contiguous()
        uniforms = [None] * rows if uniforms is None else uniforms
        check_draws(rows, self._packed.head.outputs, temperatures, noises, uniforms)
        kept = [None if noise is None else noise.to("cpu", torch.float64).contiguous() for noise in noises]
        token, numbers = torch.empty(rows, dtype=torch.int64), torch.empty(3, rows)
        draws = (structures.Drawing * rows)()
        uniform_of = [number or 0.0 for number in uniforms]
        for place, (noise, temperature, number) in enumerate(zip(kept, temperatures, uniform_of, strict=True)):
            draws[place] = structures.Drawing(None if noise is None else noise.data_ptr(), temperature, number)
        to = structures.Unmasked(token.data_ptr(), *(row.data_ptr() for row in numbers))
        threads = torch.get_num_threads()
        outcome = self._library.dllm_unmask(
            hidden.data_ptr(), self._packed.head, draws, to, rows, threads, self._narrow
        )
        library.raise_for(outcome, f"the head over {rows} positions")
        for row in (token < 0).nonzero()[:, 0].tolist():
            # Too near a border between two ids for sums in parts: in one go, as whoever has all logits draws.
            logits = self._multiply(hidden[row : row + 1], self._packed.head)[0].double()
            share = torch.tensor(uniform_of[row], dtype=torch.float64)
            token[row] = draw(logits / temperatures[row], share)
            numbers[0, row] = logits.softmax(-1)[token[row]]
        return Unmasked(token, *numbers)

    def product(self, weight: Weight, bias: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """A linear layer of its own, with float32 outputs; see :class:`~dllm_kernels.decoder.base.Decoder`."""
        if isinstance(weight, Tensor):
            check_rows(weight, weight.shape[-1], self.weights.norm)
        if bias is not None and bias.shape != weight.shape[:1]:
            raise KernelError(f"bias {list(bias.shape)} must be [{len(weight)}]")
        # bfloat16 is multiplied in pairs.
        odd = self._narrow and weight.shape[1] % 2
        if odd and isinstance(weight, Tensor):
            weight = F.pad(weight, (0, odd))
        linear = self._packed.linear(weight, bias, None, int8=False)
        return lambda x: self._multiply(F.pad(x, (0, odd)) if odd else x, linear)

    def _multiply(self, x: Tensor, linear: structures.Linear) -> Tensor:
        check_rows(x, linear.inputs, self.weights.norm)
        x = x.contiguous()
        found = torch.empty(len(x), linear.outputs)
        threads = torch.get_num_threads()
        outcome = self._library.dllm_linear(x.data_ptr(), linear, found.data_ptr(), len(x), threads, self._narrow)
        library.raise_for(outcome, f"a product of {len(x)} rows")
        return found

    def timings(self) -> dict[str, float]:
        """Seconds of all passes since the last call: linear layers, attention, and the rest of the body."""
        found = dict(zip(("linear", "attention", "other"), self._seconds, strict=True))
        self._seconds = (ctypes.c_double * 3)()
        return found

    def _rotary(self, length: int) -> Tensor:
        """Cosines and sines float32 [2, at least length, head_dim / 2]."""
        if length > self._rotary_table.shape[1]:
            angles = torch.outer(torch.arange(1 << (length - 1).bit_length()).float(), self.weights.frequencies)
            self._rotary_table = torch.stack([angles.cos(), angles.sin()]) * self.weights.rope_scale
        return self._rotary_table

    def _parts(self, parts: Sequence[Part], seen: Sequence[Tensor]) -> tuple[Any, int]:
        """The parts, each with its number among those of its row, and the most parts of a row."""
        own = (structures.Part * len(parts))()
        counts: dict[int, int] = {}
        for place, (part, mask) in enumerate(zip(parts, seen, strict=True)):
            store = cast(CompiledStore, part.store)
            keys, values = store.pointers
            number = counts.get(id(store), 0)
            counts[id(store)] = number + 1
            own[place] = structures.Part(
                part.rows.start, len(mask), store.kept, number, store.capacity, keys, values, mask.data_ptr()
            )
        return own, max(counts.values(), default=0)


class CompiledInt8Decoder(CompiledDecoder):
    """The same in int8, on weights of its own."""

    copies = True

    def __init__(self, weights: AnyWeights) -> None:
        super().__init__(weights, int8=True)
