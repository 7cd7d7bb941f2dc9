"""Pairs of loaded models."""

from dllm_plugins import Model
from dllm_plugins.pairs.bridge import OneTokenizer
from dllm_plugins.pairs.denoiser import PairDenoiser
from dllm_plugins.pairs.drafter import Drafter
from dllm_plugins.pairs.guests import Guests
from dllm_plugins.pairs.model import PairModel


def paired(target: Model, drafter: Model) -> PairModel:
    """A pair of models that share their tokens."""
    own, bridge = target.denoiser, OneTokenizer()
    made = Drafter(drafter.denoiser, own.spec.vocabulary)
    denoiser = PairDenoiser(own, made, bridge, Guests(drafter, bridge), "pair of two")
    return PairModel("pair of two", denoiser, target.tokenizer, drafter, bridge)
