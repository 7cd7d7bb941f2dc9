"""Losses of discrete diffusion and flow matching, as functions of logits, tokens and time.

All take logits [B, L, V], clean tokens [B, L], noisy tokens [B, L] and the time the noise
was drawn at, from 0 (noise) to 1 (data), and give nats per sequence, [B]. With the time
uniform on (0, 1) and the noise of :func:`mask_noise` or :func:`uniform_noise`, the mean of a
bound is an upper bound of -log p(clean).

==================== ======================== ======================================
loss                 noise                    source
==================== ======================== ======================================
masked_diffusion     masks                    MDLM, arXiv 2406.07524
block_diffusion      masks, a time per block  BD3-LM, arXiv 2503.09573
uniform_diffusion    random tokens            UDLM, arXiv 2412.10193
generalised_kl       either                   arXiv 2412.03487
cross_entropy        either; not a bound      arXiv 2407.15595
multi_granularity    masks; a mean, no bound  MGDM, arXiv 2410.14157
==================== ======================== ======================================

What the logits should say differs. All losses but one are smallest where they are the
posterior of a clean token given the whole noisy sequence. `uniform_diffusion` wants the
posterior given all the *other* noisy tokens; its own token then enters by the formula.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_plugins.processes.flow import Scheduler

LINEAR = Scheduler()


def mask_noise(clean: Tensor, time: Tensor, luck: Tensor, mask_id: int, scheduler: Scheduler = LINEAR) -> Tensor:
    """Tokens [B, L], each clean with probability kappa(time), else the mask.

    :param time: [B], or [B, L] for a time per position.
    :param luck: uniform numbers [B, L].
    """
    return clean.where(luck < scheduler.kappa(_each(time, clean)), mask_id)


def uniform_noise(clean: Tensor, time: Tensor, luck: Tensor, other: Tensor, scheduler: Scheduler = LINEAR) -> Tensor:
    """The same, else a token of `other` [B, L], which is uniform over the vocabulary."""
    return clean.where(luck < scheduler.kappa(_each(time, clean)), other)


def substituted(logits: Tensor, noisy: Tensor, mask_id: int) -> Tensor:
    """Logits of a masked model as probabilities want them: never the mask, and committed tokens as they are (SUBS)."""
    never = torch.tensor([mask_id], device=logits.device)
    copied = torch.full_like(logits, -torch.inf).scatter(-1, noisy[..., None], 0.0)
    return torch.where((noisy == mask_id)[..., None], logits.index_fill(-1, never, -torch.inf), copied)


def cross_entropy(logits: Tensor, clean: Tensor, counted: Tensor | None = None) -> Tensor:
    """-log p of the clean tokens, summed over positions.

    :param counted: bool [B, L], such as those that are masked; all if not given.
    """
    found = F.cross_entropy(logits.transpose(1, 2), clean, reduction="none")
    return (found if counted is None else found.where(counted, 0.0)).sum(-1)


def multi_granularity(
    logits: Tensor, clean: Tensor, open_: Tensor, level: Tensor, levels: int, focus: float, scale: float = 0.25
) -> Tensor:
    """Cross-entropy of the masked tokens of a batch, hard tokens and easy sequences weighing more; a scalar.

    A token weighs scale * (1 - p)^focus, a sequence levels - level, and the sum is divided by how many tokens are
    masked: `token_reweighting` and `time_reweighting="linear"` of HKUNLP/diffusion-vs-ar 6743981, `trainer.py`.

    :param open_: bool [B, L], drawn with probability (level + 1) / levels.
    :param level: int64 [B, 1], from 0.
    """
    entropy = F.cross_entropy(logits.transpose(1, 2), clean, reduction="none")
    weight = scale * (1 - torch.exp(-entropy)) ** focus * (levels - level)
    return (weight * entropy).where(open_, 0.0).sum() / open_.sum().clamp(min=1)


def masked_diffusion(
    logits: Tensor, clean: Tensor, noisy: Tensor, time: Tensor, mask_id: int, scheduler: Scheduler = LINEAR
) -> Tensor:
    """k'/(1 - k) times the cross-entropy of the masked positions: the bound of masked diffusion in continuous time.

    :param time: [B], or [B, L].
    """
    open_ = noisy == mask_id
    never = torch.tensor([mask_id], device=logits.device)
    entropy = F.cross_entropy(logits.index_fill(-1, never, -torch.inf).transpose(1, 2), clean, reduction="none")
    return (entropy * _weight(_each(time, clean), scheduler)).where(open_, 0.0).sum(-1)


def block_diffusion(
    logits: Tensor,
    clean: Tensor,
    noisy: Tensor,
    time: Tensor,
    block_length: int,
    mask_id: int,
    scheduler: Scheduler = LINEAR,
) -> Tensor:
    """The same with a time of its own for every block, whose logits saw the clean blocks before it.

    :param time: [B, blocks]; the last block may be short. With times from a part (low, high) of
        (0, 1) only, BD3-LM's clipped schedules, this is no bound but has less variance.
    """
    each = time.repeat_interleave(block_length, dim=1)[:, : clean.shape[1]]
    return masked_diffusion(logits, clean, noisy, each, mask_id, scheduler)


def uniform_diffusion(
    logits: Tensor, clean: Tensor, noisy: Tensor, time: Tensor, scheduler: Scheduler = LINEAR
) -> Tensor:
    """The bound of uniform diffusion in continuous time.

    Reversed in time, a position that holds z turns to j at the rate k'/(V k) r_j, with r the
    ratio of how likely j and z are at that time given the clean token. The loss is the
    generalised divergence between these rates with the true clean token and with the model's
    probabilities in its place.
    """
    size, each = logits.shape[-1], _each(time, clean)[..., None]
    kappa = scheduler.kappa(each)
    true = kappa * size * F.one_hot(clean, size) + (1 - kappa)
    said = kappa * size * torch.softmax(logits, dim=-1) + (1 - kappa)
    ratio, guess = (odds / odds.gather(-1, noisy[..., None]) for odds in (true, said))
    rate = scheduler.slope(each) / (size * kappa)
    # At j = z both ratios are 1 and the term is 0.
    return (rate * (guess - ratio + ratio * torch.log(ratio / guess))).sum((-2, -1))


def generalised_kl(logits: Tensor, clean: Tensor, noisy: Tensor, time: Tensor, scheduler: Scheduler = LINEAR) -> Tensor:
    """The bound of discrete flow matching: the divergence between the true rates k'/(1 - k) and the model's.

    From masks, with :func:`substituted` logits, it is :func:`masked_diffusion`. From random
    tokens it stays above -log p even for a perfect model, whose rates cannot tell which of its
    tokens have jumped already.
    """
    log = torch.log_softmax(logits, dim=-1)
    stays = log.gather(-1, noisy[..., None])[..., 0].exp()
    same = noisy == clean
    divergence = same.to(log.dtype) - stays - log.gather(-1, clean[..., None])[..., 0].masked_fill(same, 0.0)
    return (_weight(_each(time, clean), scheduler) * divergence).sum(-1)


def _weight(time: Tensor, scheduler: Scheduler) -> Tensor:
    return scheduler.slope(time) / (1 - scheduler.kappa(time))


def _each(time: Tensor, tokens: Tensor) -> Tensor:
    """A time per position."""
    return time if time.dim() == tokens.dim() else time[:, None].expand(tokens.shape)
