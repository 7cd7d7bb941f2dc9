"""Commit rules: which open positions to settle. One rule a file."""

from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import CommitRule
from dllm_plugins.rules.factor import FactorRule
from dllm_plugins.rules.quota import QuotaRule
from dllm_plugins.rules.random import RandomRule
from dllm_plugins.rules.threshold import ThresholdRule

__all__ = ["CanvasView", "CommitRule", "FactorRule", "QuotaRule", "RandomRule", "ThresholdRule"]
