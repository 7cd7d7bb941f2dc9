"""How likely a diffusion model finds a text, at least: the bound of its noise, estimated with noise of a fixed seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import Any

import torch

from dllm_plugins.processes.objectives import IGNORED
from dllm_plugins.processes.objectives import OBJECTIVES
from dllm_plugins.training.conversion.text import Row
from dllm_plugins.training.conversion.text import learnt
from dllm_plugins.training.conversion.text import unfilled


@dataclass(frozen=True, slots=True)
class LikelihoodBound:
    """Nats a token, no less than -log p of the texts on average over noise; `error` is its standard error."""

    nats: float
    error: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """The same as a perplexity, an upper bound."""
        return math.exp(self.nats)


@torch.no_grad()
def bound(model: Any, rows: Sequence[Row], draws: int, seed: int = 0) -> LikelihoodBound:
    """The bound of masked diffusion in continuous time (arXiv 2406.07524; of blocks, arXiv 2503.09573).

    The mask is given no probability, as where a model decodes. The lowest share of masked tokens, a thousandth, is
    left out of the integral.

    :param model: a :class:`~dllm_transformers.DiffusionModelForCausalLM`; its objective is put back.
    :param rows: prompts, which have no labels, are given. Ends of text that fill up a block must be guessed, too, and
        are no tokens, so that the texts are no less likely than said.
    :param draws: of noise, for each text.
    """
    prefixed = model.checkpoint.layout.attention == "block-causal" or "bd3lm" in model.spec.samplers["diffusion"]
    objective = replace(OBJECTIVES["dllm_bd3lm" if prefixed else "dllm_mdlm"], never_mask=True)
    generator, kept, training = torch.Generator().manual_seed(seed), model.objective, model.training
    model.eval()
    model.objective, sums, total = objective, [0.0] * draws, 0
    try:
        for row in rows:
            ids, labels = (torch.tensor([row[name]], device=model.device) for name in ("input_ids", "labels"))
            # Rows that predict what is right of them have none for the first token.
            count = learnt(row) + (row["labels"][0] != IGNORED and not model.checkpoint.layout.shifted)
            total += learnt(unfilled(row))
            for draw in range(draws):
                sums[draw] += count * float(model(ids, labels=labels, generator=generator).loss)
    finally:
        model.objective = kept
        model.train(training)
    each = [value / total for value in sums]
    mean = sum(each) / draws
    spread = sum((value - mean) ** 2 for value in each) / max(1, draws - 1)
    return LikelihoodBound(mean, math.sqrt(spread / draws), total)


@torch.no_grad()
def likelihood(model: Any, rows: Sequence[Row]) -> float:
    """Nats a token of an autoregressive model of transformers, of what has labels."""
    nats = total = 0.0
    for row in rows:
        ids, labels = (torch.tensor([row[name]], device=model.device) for name in ("input_ids", "labels"))
        if count := learnt(row):
            nats += count * float(model(input_ids=ids, labels=labels).loss)
            total += count
    return nats / total
