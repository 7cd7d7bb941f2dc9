"""Commit rules, which say what to settle, and revocation rules, which reopen. One rule a file."""

from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import CommitRule
from dllm_plugins.rules.base import RevocationRule
from dllm_plugins.rules.base import RuleDefaults
from dllm_plugins.rules.base import RuleSettings
from dllm_plugins.rules.factor import FactorRule
from dllm_plugins.rules.quota import QuotaRule
from dllm_plugins.rules.random import RandomRule
from dllm_plugins.rules.threshold import ThresholdRule

__all__ = [
    "CanvasView",
    "CommitRule",
    "FactorRule",
    "QuotaRule",
    "RandomRule",
    "RevocationRule",
    "RuleDefaults",
    "RuleSettings",
    "ThresholdRule",
]
