"""Strategies: the conversation between engine and model for one decoding method."""

from dllm_plugins.strategies.ar import AutoregressiveStrategy
from dllm_plugins.strategies.base import Plan
from dllm_plugins.strategies.base import Strategy
from dllm_plugins.strategies.block import BlockStrategy
from dllm_plugins.strategies.sampled import SampledStrategy
from dllm_plugins.strategies.speculative import SpeculativeStrategy

__all__ = ["AutoregressiveStrategy", "BlockStrategy", "Plan", "SampledStrategy", "SpeculativeStrategy", "Strategy"]
