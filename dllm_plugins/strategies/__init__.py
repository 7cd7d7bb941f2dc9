"""Strategies: the conversation between engine and model for one decoding method."""

from dllm_plugins.strategies.ar import AutoregressiveStrategy
from dllm_plugins.strategies.base import Plan
from dllm_plugins.strategies.base import Strategy
from dllm_plugins.strategies.block import BlockStrategy
from dllm_plugins.strategies.canvas import CanvasStrategy
from dllm_plugins.strategies.speculative import SpeculativeStrategy

__all__ = ["AutoregressiveStrategy", "BlockStrategy", "CanvasStrategy", "Plan", "SpeculativeStrategy", "Strategy"]
