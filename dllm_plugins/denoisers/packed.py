"""Attention of a pass whose positions stand in one line, whatever their rows.

Products of all linear layers, norms and mixtures of experts are made once over all positions of a pass; only here is
each row apart. Its new keys go into its store, right behind what that keeps, and its queries look at a view of it: no
prefix is ever copied, and there is no padding. Heads that share a key head read it where it is.

transformers calls such a function where a model's config names it, which it does during a pass only.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from itertools import accumulate
from typing import TYPE_CHECKING
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch import nn

from dllm_plugins.denoisers.native_cache import NativeCache
from dllm_plugins.denoisers.visibility import additive
from dllm_plugins.libraries.private_transformers import attending
from dllm_plugins.libraries.private_transformers import takes_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: The name of this attention in transformers' table.
NAME = "dllm_packed"
#: The argument that carries the pass through a model's forward.
ARGUMENT = "dllm_pass"


@dataclass(frozen=True, slots=True)
class SeenSlots:
    """What positions of a part see: slots of their row's store from `begin` to their own last key.

    :param seen: bool [n, slots], which of them; None for all.
    """

    begin: int
    seen: Tensor | None

    @classmethod
    def at(cls, seen: Tensor, begin: int = 0) -> "SeenSlots":
        """Of slots from `begin` on, told by `seen`, bool [n, slots], of all slots."""
        near = seen[:, begin:]
        return cls(begin, None if bool(near.all()) else near)


@dataclass(frozen=True, slots=True)
class RowSpan:
    """Consecutive positions of a pass that belong to one row.

    :param rows: which of the pass's positions they are.
    :param own: the slot of its store where their keys go.
    :param looks: what they see, by kind of layer.
    """

    store: NativeCache
    rows: slice
    own: int
    looks: Sequence[SeenSlots]


@dataclass
class PackedPass:
    """A pass, as it comes to the attention of each layer.

    :param parts: in the order in which they are computed: where a row has several, the keys of the last one stay.
    :param kinds: per layer, which of its parts' looks counts; the first one where nothing is said.
    :ivar layers: how many layers have asked.
    """

    parts: Sequence[RowSpan]
    kinds: Sequence[int] = ()
    layers: int = 0
    _masks: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
        """Attention of all positions, [N, heads, size]; q [heads, N, size], k and v [kv_heads, N, size]."""
        self.layers += 1
        kind = self.kinds[layer] if self.kinds else 0
        found = q.new_empty(q.shape[1], q.shape[0], v.shape[2])
        for number, part in enumerate(self.parts):
            rows, end = part.rows, part.own + part.rows.stop - part.rows.start
            part.store.write(layer, k[:, rows], v[:, rows], part.own)
            begin = part.looks[kind].begin
            keys, values = part.store.keys[layer][:, begin:end], part.store.values[layer][:, begin:end]
            mixed = attention(q[:, rows], keys, values, self._mask(number, kind, q), scale)
            found[rows] = mixed.transpose(0, 1)
        return found

    def _mask(self, number: int, kind: int, like: Tensor) -> Tensor | None:
        """A part's mask [1, 1, n, slots], made once for all layers of a device."""
        seen = self.parts[number].looks[kind].seen
        if seen is None:
            return None
        key = (number, kind, like.device)
        if key not in self._masks:
            self._masks[key] = additive(seen[None], like.dtype, like.device)
        return self._masks[key]


def attention(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """Softmax attention of one row: q [heads, n, size] over keys and values [kv_heads, K, size], as q.

    :param mask: added to the scores, [1, 1, n, K].
    """
    groups = len(q) // len(keys)
    # Heads of a group are one sequence's heads, and each group is a sequence: nothing is repeated in memory.
    keys, values = (each[:, None].expand(-1, groups, -1, -1) for each in (keys, values))
    grouped = q.unflatten(0, (-1, groups))
    return F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scale).flatten(0, 1)


def in_line(lengths: Sequence[int]) -> list[slice]:
    """Where parts of these lengths stand, one behind another."""
    return [slice(end - length, end) for length, end in zip(lengths, accumulate(lengths), strict=True)]


class NoPass(Exception):
    """A class keeps from its attention what its forward was given."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: states [1, heads, N, size] to [1, N, heads, size].

    :param others: among them the pass, under :data:`ARGUMENT`.
    :raises NoPass: if it is not there.
    """
    told: PackedPass | None = others.get(ARGUMENT)
    if told is None:
        raise NoPass(type(module).__name__)
    # Each attention of transformers knows its number.
    layer: Any = module.layer_idx
    return told.attend(layer, query[0], key[0], value[0], scaling)[None], None


def packs(model: "PreTrainedModel") -> bool:
    """Whether a model's attention can be :func:`packed_attention`; then transformers knows it."""
    if not takes_attention(model):
        return False
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
    return True


def through(model: "PreTrainedModel", told: PackedPass, layers: int, forward: Callable[..., Any]) -> Tensor | None:
    """Final hidden states [N, hidden] of a pass; None if it did not come to each of so many layers.

    :param forward: of a part of the model; takes the pass by its name.
    """
    try:
        with attending(model, NAME):
            hidden: Tensor = forward(**{ARGUMENT: told}).last_hidden_state[0]
    except NoPass:
        return None
    return hidden if told.layers == layers else None
