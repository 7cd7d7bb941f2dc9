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

Weight = Literal["one", "reciprocal", "context", "sure"]


@dataclass(frozen=True, slots=True)
class Objective:
    """How a text is noised and its masked positions are weighted.

    :param source: where it was read.
    :param weight: one: all alike; reciprocal: by one over the share that is masked; context: by how near what is
        not masked stands; sure: 1, and the model's own probability of the token over the share that is masked.
    :param low: the least share of masked tokens, which is drawn evenly from here to `high`.
    :param per_block: draw a share for every block instead of one for the whole text.
    :param clean_prefix: noisy blocks see the clean ones before them, in one pass over both.
    :param complementary: what one pass masks another leaves, so that every token is guessed once.
    :param over: the sum is divided by the number of tokens that have labels, or of those that are masked.
    :param never_mask: the mask has no probability.
    :param causal: no noise: every token is predicted from those before it.
    """

    source: str
    weight: Weight = "reciprocal"
    low: float = LEAST
    high: float = 1.0
    per_block: bool = False
    clean_prefix: bool = False
    complementary: bool = False
    over: Literal["labels", "masked"] = "labels"
    never_mask: bool = False
    causal: bool = False


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


def noised(objective: Objective, counted: Tensor, block: Tensor, generator: torch.Generator | None) -> Noised:
    """Draw what is masked: of the tokens that are counted, and no others.

    :param counted: bool [batch, length].
    :param block: which block each token is in, int64 [batch, length].
    :param generator: torch's own of the CPU where none is given; its numbers depend on shapes alone.
    """
    place = torch.device("cpu") if generator is None else generator.device

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=place, dtype=torch.float64).to(counted.device)

    rows, length = counted.shape
    time = draw(rows, length).gather(1, block) if objective.per_block else draw(rows, 1).expand(rows, length)
    share = objective.low + (objective.high - objective.low) * time
    return Noised((draw(rows, length) < share) & counted, share)


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
