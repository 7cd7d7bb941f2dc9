"""The torch denoiser of the tri-mode default: the base for clean rows, low-rank pairs for open ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.decoder.rotary import Rotary
from dllm_plugins.caches.exact import CHUNK
from dllm_plugins.caches.exact import ExactCache
from dllm_plugins.denoisers.attention import ROWS
from dllm_plugins.denoisers.attention import attend
from dllm_plugins.denoisers.attention import linear
from dllm_plugins.denoisers.attention import pad_rows
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import PrefixState
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.low_rank import SCALE
from dllm_plugins.denoisers.low_rank import LowRankWeights
from dllm_plugins.denoisers.rows import Rows
from dllm_plugins.denoisers.rows import wanted_of
from dllm_plugins.denoisers.weights import LlamaWeights
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import said


@dataclass(slots=True)
class _Part:
    """One request's share of a pass: its rows in the pass, its cache and who sees whom."""

    cache: ExactCache
    rows: slice
    mask: Tensor


def visibility(segments: Sequence[Segment], prefix: int) -> Tensor:
    """Who sees whom among one request's rows of a pass, bool [n, whole chunks of prefix + n]."""
    starts, total = [], 0
    for segment in segments:
        starts.append(total)
        total += len(segment.tokens)
    mask = torch.zeros(total, -(-(prefix + total) // CHUNK) * CHUNK, dtype=torch.bool)
    mask[:, :prefix] = True
    for segment, start in zip(segments, starts, strict=True):
        if segment.apart is not None:
            raise OptionError("this backend cannot hide single keys from a token; choose another mode")
        count = len(segment.tokens)
        own = torch.ones(count, count, dtype=torch.bool)
        mask[start : start + count, prefix + start : prefix + start + count] = own.tril() if segment.causal else own
        for other, seen in segment.behind:
            mask[start : start + count, prefix + starts[other] : prefix + starts[other] + seen] = True
    return mask


class TorchDenoiser(Rows[ExactCache]):
    """See :class:`~dllm_plugins.denoisers.base.Denoiser`. Llama shapes with tied embeddings.

    :param base: weights, each layer on the device it runs on.
    :param low_rank: the denoiser's own weights, on the same devices.
    """

    def __init__(self, base: LlamaWeights, low_rank: LowRankWeights, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.base = base
        self.low_rank = low_rank
        half = torch.arange(0, base.shape.head_dim, 2, dtype=torch.float32) / base.shape.head_dim
        self._rotary = Rotary(1.0 / base.shape.rope_theta**half, 1.0)
        self._devices = [layer.qkv.device for layer in base.layers]
        embedding = base.embedding
        self._embedding = torch.cat([embedding, low_rank.mask_embedding[None].to(embedding)])
        self._shortlist: Tensor | None = None
        if low_rank.draft_tokens is not None:
            self._shortlist = low_rank.draft_tokens.long().to(embedding.device)
            self._shortlist_head = embedding[self._shortlist].contiguous()

    def open_row(self, prefix: PrefixState | None = None, length: int = 0) -> int:
        """A handle with an empty prefix, or with a copy of the first `length` positions of a kept one."""
        if prefix is None:
            return self._open(ExactCache(self.base.shape, self._devices))
        assert isinstance(prefix, ExactCache)
        return self._open(prefix.copy(length))

    def hold(self, row: int, indices: Sequence[int]) -> None:
        """Refused: the cache of this backend is exact.

        :raises OptionError: always.
        """
        raise OptionError(said("{} has an exact cache only; leave {approximate_cache} out", self.spec.name))

    def release(self, row: int) -> None:
        """Nothing is held."""

    def _parts(self, segments: Sequence[Segment]) -> list[_Part]:
        parts: list[_Part] = []
        start = index = 0
        while index < len(segments):
            row = segments[index].row
            own = []
            while index < len(segments) and segments[index].row == row:
                own.append(segments[index])
                index += 1
            cache = self._rows[row]
            mask = visibility(own, cache.length)
            cache.reserve(len(mask))
            parts.append(_Part(cache, slice(start, start + len(mask)), mask))
            start += len(mask)
        return parts

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment]) -> list[Tensor]:
        """One pass; see :meth:`~dllm_plugins.denoisers.base.Denoiser.forward`."""
        parts = self._parts(segments)
        home = self.base.embedding.device
        tokens = torch.tensor([token for segment in segments for token in segment.tokens])
        positions = torch.tensor([place for segment in segments for place in segment.positions])
        noisy = torch.tensor([segment.noisy for segment in segments for _ in segment.tokens])
        x = pad_rows(self._embedding[tokens.to(home)], ROWS)
        gate = None
        if bool(noisy.any()):
            gate = pad_rows(noisy.to(x.dtype)[:, None] * SCALE, ROWS).to(home)
        turns = self._rotary(positions, len(positions))
        rotary = torch.stack([torch.cat([turn, turn], dim=-1) for turn in turns]).to(home)
        for index in range(len(self.base.layers)):
            device = self._devices[index]
            if x.device != device:
                x, rotary = x.to(device), rotary.to(device)
                gate = None if gate is None else gate.to(device)
            x = self._layer(index, x, rotary, parts, gate)
        x = F.rms_norm(x.to(home), (x.shape[-1],), self.base.norm, self.base.shape.rms_eps)
        return wanted_of(x, segments)

    def _linear(self, x: Tensor, weight: Tensor, layer: int, which: int, gate: Tensor | None) -> Tensor:
        out = linear(x, weight)
        if gate is None:
            return out
        down, up = self.low_rank.pairs[layer][which]
        return out + linear(linear(x, down) * gate, up)

    def _layer(self, index: int, x: Tensor, rotary: Tensor, parts: list[_Part], gate: Tensor | None) -> Tensor:
        layer, shape = self.base.layers[index], self.base.shape
        normed = F.rms_norm(x, (shape.hidden,), layer.input_norm, shape.rms_eps)
        fused = self._linear(normed, layer.qkv, index, 0, gate).float().view(len(x), -1, shape.head_dim)
        seen = self._attention(index, fused[: rotary.shape[1]], rotary, parts).to(x.dtype)
        x = x + self._linear(pad_rows(seen, ROWS), layer.out, index, 1, gate)
        normed = F.rms_norm(x, (shape.hidden,), layer.post_norm, shape.rms_eps)
        left, right = self._linear(normed, layer.gate_up, index, 2, gate).chunk(2, dim=-1)
        return x + self._linear(F.silu(left) * right, layer.down, index, 3, gate)

    def _attention(self, index: int, fused: Tensor, rotary: Tensor, parts: list[_Part]) -> Tensor:
        shape = self.base.shape
        turned = fused[:, : shape.heads + shape.kv_heads]
        first, second = turned.chunk(2, dim=-1)
        turned = turned * rotary[0] + torch.cat([-second, first], dim=-1) * rotary[1]
        q, k = turned[:, : shape.heads], turned[:, shape.heads :]
        v = fused[:, shape.heads + shape.kv_heads :]
        seen = []
        for part in parts:
            keys, values = part.cache.write(index, k[part.rows], v[part.rows])
            seen.append(attend(q[part.rows], keys, values, part.mask.to(keys.device)))
        return torch.cat(seen)

    @torch.inference_mode()
    def logits(self, hidden: Tensor, left: Tensor | None = None) -> Tensor:
        """Logits [N, vocabulary]; see :meth:`~dllm_plugins.denoisers.base.Denoiser.logits`."""
        return self._head(hidden, left, self.base.embedding)

    @torch.inference_mode()
    def draft_logits(self, hidden: Tensor, left: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits over the shortlist of frequent tokens, where the weights carry one."""
        if self._shortlist is None:
            return self.logits(hidden, left), None
        return self._head(hidden, left, self._shortlist_head), self._shortlist

    def _head(self, hidden: Tensor, left: Tensor | None, head: Tensor) -> Tensor:
        padded = pad_rows(hidden, ROWS)
        if left is not None:
            padded = refined(padded, left, self._embedding, self.low_rank.chain_down, self.low_rank.chain_up)
        return linear(padded, head)[: len(hidden)]


def refined(hidden: Tensor, left: Tensor, embedding: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """The chain head where the left token is known; hidden [N, width] padded to whole tiles, left [n, 2].

    :param embedding: [ids, width]; `down` [inner, 3 * width] and `up` [width, inner] are the head's own.
    """
    known = embedding[left.clamp(min=0).to(hidden.device)] * (left >= 0).to(hidden)[..., None]
    known = pad_rows(known.flatten(1), ROWS).view(-1, 2, hidden.shape[-1])
    inputs = torch.cat([hidden, unit_rms(known[:, 0]), unit_rms(known[:, 1])], dim=-1)
    change = linear(F.silu(linear(inputs, down)), up)
    return hidden + change * pad_rows((left[:, :1] >= 0).to(hidden), ROWS)


def unit_rms(x: Tensor) -> Tensor:
    """Rows scaled to a root mean square of one; rows of zeros stay zero."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)
