"""How published masked models were trained: which tokens are masked, what the model sees, how each is weighted.

Everything here was read in the source that is named beside it. What an objective adds up is a sum over masked
positions of a weight times -log p(clean token). Attention and shift are the family's, not the objective's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

#: Labels that are not counted, as everywhere in transformers.
IGNORED = -100
#: The smallest share of masked tokens in most sources, lest a weight be infinite.
LEAST = 1e-3
#: Parameter of the geometric distribution of Dream-Coder's fine-tuning.
NEAR = 0.1

Weight = Literal["one", "reciprocal", "context", "sure", "late"]


@dataclass(frozen=True, slots=True)
class Objective:
    """How a text is noised and its masked positions are weighted.

    :param source: where it was read.
    :param weight: one: all alike; reciprocal: by one over the share that is masked; context: by how near what is
        not masked stands; sure: 1, and the model's own probability of the token over the share that is masked; late: by
        the share that is not masked.
    :param low: the least share of masked tokens, which is drawn evenly from here to `high`.
    :param per_block: draw a share for every block instead of one for the whole text.
    :param clean_prefix: noisy blocks see the clean ones before them, in one pass over both.
    :param complementary: what one pass masks another leaves, so that every token is guessed once.
    :param over: the sum is divided by the number of tokens that have labels, or of those that are masked, or by the sum
        of the weights; "ends as one": of those that are masked, all ends of text among them counting as one.
    :param never_mask: the mask has no probability.
    :param causal: no noise: every token is predicted from those before it.
    :param noisy: what the mean over masked tokens counts.
    :param clean: what the mean -log p of the labels of the clean text, each given those before it, adds. Above 0 the
        clean text, which stands before noisy blocks then, is seen from left to right.
    :param within: what masked tokens see of their own noisy block.
    :param known_first: tokens that are not masked stand before those that are in each noisy block, at their positions.
    :param rounded: mask exactly as many tokens of a block as its share says, rounded.
    :param clipped: shares below that of one token of a block are that of one, and each block has a masked token.
    :param noise: masked: what is noised is masked; uniform: it is replaced by any token, evenly drawn, and all that is
        learnt counts, changed or not.
    :param merged: how likely at most a mask takes in the one behind it, and is learnt to expand; ends of text are
        masked always then.
    :param conditioned: how many of the texts are conditioned on what the model said of their noise before.
    """

    source: str
    weight: Weight = "reciprocal"
    low: float = LEAST
    high: float = 1.0
    per_block: bool = False
    clean_prefix: bool = False
    complementary: bool = False
    over: Literal["labels", "masked", "weights", "ends as one"] = "labels"
    never_mask: bool = False
    causal: bool = False
    noisy: float = 1.0
    clean: float = 0.0
    within: Literal["both ways", "leftwards"] = "both ways"
    known_first: bool = False
    rounded: bool = False
    clipped: bool = False
    noise: Literal["masked", "uniform"] = "masked"
    merged: float = 0.0
    conditioned: float = 0.0


OBJECTIVES: Mapping[str, Objective] = {
    "llada": Objective("ML-GSAI/LLaDA b7e6c35, GUIDELINES.md; arXiv 2502.09992"),
    "dllm_mdlm": Objective("ZHZisZZ/dllm ca17675, dllm/core/trainers/mdlm.py; arXiv 2406.07524"),
    "dllm_bd3lm": Objective("ZHZisZZ/dllm ca17675, dllm/core/trainers/bd3lm.py", clean_prefix=True),
    "bd3lm": Objective(
        "kuleshov-group/bd3lms 1c3e8f4, diffusion.py; arXiv 2503.09573",
        per_block=True,
        clean_prefix=True,
        never_mask=True,
    ),
    "dream": Objective(
        "DreamLM/Dream-Coder 87409da, instruct/src/trainer/fsdp_sft_trainer.py; arXiv 2508.15487",
        weight="context",
        low=0.0,
        over="masked",
    ),
    "dreamon": Objective(
        "DreamLM/DreamOn 8a0a549, src/trainer and run_dreamon.sh",
        weight="late",
        low=0.0,
        over="ends as one",
        merged=0.5,
    ),
    "diffullama": Objective("HKUNLP/DiffuLLaMA c17e897, train.py; arXiv 2410.17891", over="masked"),
    # The source clips shares that are drawn from 0 to 1.
    "open_dcoder": Objective(
        "pengzhangzhi/Open-dLLM 8b38787, veomni/models/transformers/qwen2/modeling_qwen2.py",
        weight="sure",
        low=1 / 500,
        high=1 - 1 / 500,
        over="masked",
    ),
    "sdar": Objective("JetAstra/SDAR c2041a8, modeling_sdar.py; arXiv 2510.06303", clean_prefix=True),
    "llada2": Objective(
        "inclusionAI/dFactory 92b6890, tasks/train_llada2_bd.py; arXiv 2512.15745",
        weight="one",
        low=0.3,
        high=0.8,
        clean_prefix=True,
        over="masked",
    ),
    "fast_dllm_v2": Objective(
        "the checkpoints' modelling file (Satgoy152/DualDiffusion 189fa7a); arXiv 2509.26328",
        weight="one",
        per_block=True,
        clean_prefix=True,
        complementary=True,
    ),
    "idlm": Objective(
        "NVIDIA-NeMo/Automodel 36044ad, nemo_automodel/components/loss/dllm_loss.py; arXiv 2604.11035",
        weight="one",
        low=1.0,
        clean_prefix=True,
        within="leftwards",
        clean=0.2,
    ),
    "nemotron": Objective(
        "NVIDIA-NeMo/Automodel 36044ad, nemo_automodel/components/loss/dllm_loss.py; mask as in NVIDIA's NeMo RL",
        clean_prefix=True,
        over="masked",
        noisy=0.3,
        clean=1.0,
    ),
    "wedlm": Objective(
        "Tencent/WeDLM 0216110, finetune/src; arXiv 2512.22737",
        low=1e-8,
        per_block=True,
        clean_prefix=True,
        over="weights",
        within="leftwards",
        known_first=True,
        rounded=True,
        noisy=0.5,
        clean=0.5,
    ),
    "stable_diffcoder": Objective(
        "ByteDance-Seed/Stable-DiffCoder ece1ffb, Stable_DiffCoder.pdf, section 3.3; arXiv 2601.15892",
        low=0.0,
        per_block=True,
        clean_prefix=True,
        clipped=True,
    ),
    "diffusion_gemma": Objective(
        "NVIDIA-NeMo/Automodel 36044ad, nemo_automodel/recipes/dllm/train_ft.py",
        weight="one",
        clean=1.0,
        noise="uniform",
        conditioned=0.5,
    ),
    "autoregressive": Objective("every token given those before it", weight="one", causal=True),
}


@dataclass(frozen=True, slots=True)
class Noised:
    """Which tokens of a batch are masked.

    :param open: bool [batch, length].
    :param share: how likely each was to be: float64 [batch, length].
    """

    open: Tensor
    share: Tensor


def noised(
    objective: Objective, counted: Tensor, block: Tensor, generator: torch.Generator | None, block_length: int
) -> Noised:
    """Draw what is masked: of the tokens that are counted, and no others.

    :param counted: bool [batch, length].
    :param block: which block each token is in, int64 [batch, length].
    :param generator: torch's own of the CPU where none is given; its numbers depend on shapes alone.
    """

    def draw(*shape: int) -> Tensor:
        return uniform_draws(generator, *shape, device=counted.device)

    rows, length = counted.shape
    time = draw(rows, length).gather(1, block) if objective.per_block else draw(rows, 1).expand(rows, length)
    share = objective.low + (objective.high - objective.low) * time
    luck = draw(rows, length)
    if objective.clipped:
        share = share.clamp(min=1 / block_length)
    if objective.rounded:
        return Noised(counted & (_rank(luck, counted, block) < (_per_block(counted, block) * share).round()), share)
    opened = (luck < share) & counted
    if objective.clipped:
        none = _per_block(opened, block) == 0
        opened = opened | (none & counted & (_rank(luck, counted, block) == 0))
    return Noised(opened, share)


def uniform_draws(generator: torch.Generator | None, *shape: int, device: torch.device) -> Tensor:
    """Numbers from 0 to 1, float64; see :func:`noised` for the generator."""
    place = torch.device("cpu") if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=place, dtype=torch.float64).to(device)


def _per_block(marked: Tensor, block: Tensor) -> Tensor:
    """How many tokens of each one's block are marked, float64 [batch, length]; both [batch, length]."""
    found = torch.zeros(marked.shape, dtype=torch.float64, device=marked.device)
    return found.scatter_add(1, block, marked.double()).gather(1, block)


def _rank(luck: Tensor, counted: Tensor, block: Tensor) -> Tensor:
    """How many counted tokens of its block have less luck than each, int64 [batch, length]."""
    less = (luck[:, None, :] < luck[:, :, None]) & (block[:, None, :] == block[:, :, None]) & counted[:, None, :]
    return less.sum(-1)


def context_weight(opened: Tensor, real: Tensor) -> Tensor:
    """How near to a masked token those stand that are not: float64 [batch, length], 0 where nothing is masked.

    Half the sum, over all real tokens that are not masked, of the geometric distribution at their distance
    (arXiv 2508.15487, context-adaptive rescheduling).

    :param opened: bool [batch, length].
    :param real: bool [batch, length], false at padding, which is no context.
    """
    place = torch.arange(opened.shape[1], device=opened.device)
    distance = (place[:, None] - place).abs().double()
    near = (0.5 * NEAR * (1 - NEAR) ** (distance - 1)).fill_diagonal_(0.0)
    return ((real & ~opened).double() @ near).where(opened, 0.0)
