"""What the unmasking head is asked, and what it answers."""

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace

import torch
from torch import Tensor

from dllm_kernels.head.packed import PackedHead

Shapes = Mapping[str, int]
#: Dtypes whose logits float32 holds exactly.
NARROW = (torch.float32, torch.bfloat16, torch.float16)
#: Noise of one position: (position, first id, last id + 1) -> float64 [last id + 1 - first id].
NoiseOf = Callable[[int, int, int], Tensor]


@dataclass(frozen=True, slots=True)
class Unmasked:
    """What N positions say.

    :param token: int64 [N], the token drawn at each.
    :param probability: float32 [N], the model's probability of that token at temperature 1.
    :param entropy: float32 [N], in nats.
    :param margin: float32 [N], the largest probability's lead over the second.
    :param top_ids: int64 [N, k], largest logit first, among equals the lower id; None unless asked for.
    :param top_logits: float32 [N, k], theirs.
    :param logits: [N, V] in the head's dtype; None unless asked for.
    """

    token: Tensor
    probability: Tensor
    entropy: Tensor
    margin: Tensor
    top_ids: Tensor | None = None
    top_logits: Tensor | None = None
    logits: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """Checked arguments of one call; see :func:`~dllm_kernels.head.unmask`.

    :param banned: int64 [S], ids banned everywhere.
    :param banned_at: int64 [P, 2], (position, id) pairs.
    :param forced: int64 [N], -1 where free.
    :param temperature: float64 [N].
    :param uniform: float64 [N], what decides a sampled position; NaN where noise does.
    :param cut: int64 [N], 0 where nothing is cut.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    banned: Tensor | None
    banned_at: Tensor | None
    forced: Tensor | None
    temperature: Tensor
    noise: NoiseOf | Tensor | None
    uniform: Tensor
    cut: Tensor
    top_k: int
    logits: bool
    packed: PackedHead | None = None

    @property
    def positions(self) -> int:
        """How many positions are wanted."""
        return len(self.hidden)

    @property
    def vocabulary(self) -> int:
        """How many ids there are."""
        return len(self.weight)

    def shapes(self) -> Shapes:
        """What an implementation may depend on; see :data:`~dllm_kernels.head.KERNEL`."""
        return {
            "positions": self.positions,
            "vocabulary": self.vocabulary,
            "width": self.weight.shape[1],
            "top_k": self.top_k,
            "cut": int(self.cut.max()) if self.positions else 0,
            "logits": int(self.logits),
            "packed": int(self.packed is not None),
            "pairs": 0 if self.banned_at is None else len(self.banned_at),
        }

    @property
    def noisy(self) -> Tensor:
        """Which positions noise decides; bool [N]."""
        return (self.temperature > 0) & self.uniform.isnan()

    @property
    def inverted(self) -> Tensor:
        """Which positions one uniform number decides; bool [N]."""
        return (self.temperature > 0) & ~self.uniform.isnan()

    def of(self, position: int) -> "Task":
        """One position alone; its logits at least."""
        forced = None if self.forced is None else self.forced[position : position + 1]
        return replace(self, hidden=self.hidden[position : position + 1], forced=forced)

    def gumbel(self, position: int, start: int, stop: int) -> Tensor:
        """Noise of one position for ids start ... stop - 1: float64 [stop - start] on the head's device."""
        assert self.noise is not None
        part = self.noise[position, start:stop] if isinstance(self.noise, Tensor) else self.noise(position, start, stop)
        if part.shape != (stop - start,):
            raise ValueError(f"noise of ids {start} to {stop - 1} is {tuple(part.shape)}; it must be [{stop - start}]")
        return part.to(self.weight.device, torch.float64)


def prepare(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    banned: Tensor | None,
    forced: Tensor | None,
    temperature: Tensor | float,
    noise: NoiseOf | Tensor | None,
    uniform: Tensor | None,
    cut: Tensor | int,
    top_k: int,
    logits: bool,
    packed: PackedHead | None,
) -> Task:
    """Check the arguments.

    :raises ValueError: naming the argument, its value and what mends it.
    """
    count, vocabulary, device = len(hidden), len(weight), weight.device
    _check_shapes(hidden, weight, bias)
    if packed is not None and packed.shape != weight.shape:
        raise ValueError(f"packed {packed.shape} is not of this weight {tuple(weight.shape)}; pack it anew")
    if not 0 <= top_k <= vocabulary:
        raise ValueError(f"top_k={top_k} must be between 0 and the vocabulary's {vocabulary}")
    degrees = torch.as_tensor(temperature, dtype=torch.float64).expand(count)
    cuts = torch.as_tensor(cut, dtype=torch.int64).expand(count)
    numbers = torch.full((count,), torch.nan, dtype=torch.float64) if uniform is None else uniform.double()
    _check_draws(degrees, noise, numbers, cuts, (count, vocabulary))
    _check_masks(banned, forced, (count, vocabulary))
    everywhere = banned if banned is not None and banned.dim() == 1 and len(banned) else None
    pairs = banned if banned is not None and banned.dim() == 2 and len(banned) else None
    return Task(
        hidden,
        weight,
        bias,
        None if everywhere is None else everywhere.to(device),
        None if pairs is None else pairs.to(device),
        None if forced is None else forced.to(device),
        degrees.to(device),
        noise,
        numbers.to(device),
        torch.where(cuts < vocabulary, cuts, 0).to(device),
        top_k,
        logits,
        packed,
    )


def _check_shapes(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1] or not len(weight):
        raise ValueError(
            f"hidden {tuple(hidden.shape)} and weight {tuple(weight.shape)} must be [N, hidden], [V, hidden]"
        )
    if hidden.dtype != weight.dtype:
        raise ValueError(f"hidden is {hidden.dtype}, weight is {weight.dtype}; convert one of them")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias {tuple(bias.shape)} must be [{len(weight)}]")
    places = {tensor.device for tensor in (hidden, weight, bias) if tensor is not None}
    if len(places) > 1:
        raise ValueError(f"hidden, weight and bias are on {', '.join(sorted(map(str, places)))}; move them together")


def _check_draws(
    temperature: Tensor, noise: NoiseOf | Tensor | None, uniform: Tensor, cut: Tensor, shape: tuple[int, int]
) -> None:
    if bool((temperature < 0).any()) or bool((cut < 0).any()):
        raise ValueError("temperature and cut must be 0 or more")
    if uniform.shape != shape[:1] or bool(((uniform <= 0) | (uniform >= 1)).any()):
        raise ValueError(f"uniform {uniform.tolist()} must be [{shape[0]}] numbers in (0, 1), NaN where none is used")
    hot, given = temperature > 0, ~uniform.isnan()
    if bool((given & ~hot).any()) or (bool((hot & ~given).any()) != (noise is not None) and shape[0]):
        raise ValueError(
            "noise or a uniform number is used where a temperature is above 0 and nowhere else; give both or neither"
        )
    if bool((cut[given] > 0).any()):
        raise ValueError("cut goes with noise; to cut what a uniform number draws from, take the logits")
    if bool((cut[~hot] > 0).any()):
        raise ValueError("cut does nothing at temperature 0; leave it out there")
    if isinstance(noise, Tensor) and (noise.shape != shape or noise.dtype != torch.float64):
        raise ValueError(f"noise is {noise.dtype} {tuple(noise.shape)}; it must be float64 {shape}")


def _check_masks(banned: Tensor | None, forced: Tensor | None, shape: tuple[int, int]) -> None:
    count, vocabulary = shape
    for name, ids in (("banned", banned), ("forced", forced)):
        if ids is not None and ids.dtype != torch.int64:
            raise ValueError(f"{name} is {ids.dtype}; it must be torch.int64")
    if banned is not None and banned.numel():
        pairs = banned.dim() == 2 and banned.shape[1] == 2
        ids = banned[:, 1] if pairs else banned
        if ids.dim() != 1 or bool(((ids < 0) | (ids >= vocabulary)).any()):
            raise ValueError(f"banned {banned.tolist()} must be ids below {vocabulary}, or pairs (position, id)")
        if pairs and bool(((banned[:, 0] < 0) | (banned[:, 0] >= count)).any()):
            raise ValueError(f"banned {banned.tolist()} names a position outside 0 ... {count - 1}")
    if forced is None:
        return
    if forced.shape != (count,) or bool(((forced < -1) | (forced >= vocabulary)).any()):
        raise ValueError(f"forced {forced.tolist()} must be [{count}] ids below {vocabulary}, -1 where free")
    if banned is None:
        return
    everywhere = banned.dim() == 1
    clash = torch.isin(forced, banned) if everywhere else forced[banned[:, 0]] == banned[:, 1]
    if bool(clash.any()):
        raise ValueError(f"forced {forced.tolist()} and banned {banned.tolist()} name the same token; drop one")
