"""Pairs of loaded models."""

from dllm_plugins import Model
from dllm_plugins.pairs.bridge import OneTokenizer
from dllm_plugins.pairs.denoiser import PairDenoiser
from dllm_plugins.pairs.drafter import Drafter


def paired(target: Model, drafter: Model) -> Model:
    """A pair of models that share their tokens."""
    own = target.denoiser
    made = PairDenoiser(own, Drafter(drafter.denoiser, own.spec.vocabulary), OneTokenizer(), "pair of two")
    return Model("pair of two", made, target.tokenizer)
