"""Commit rules, which say what to commit, and revocation rules, which reopen. One rule a file."""

from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import CommitRule
from dllm_plugins.rules.base import RevocationRule
from dllm_plugins.rules.base import RuleDefaults
from dllm_plugins.rules.base import RuleSettings
from dllm_plugins.rules.base import most_probable
from dllm_plugins.rules.base import parameters
from dllm_plugins.rules.base import revocation_parameters
from dllm_plugins.rules.credit import CreditRule
from dllm_plugins.rules.doubt import DoubtRule
from dllm_plugins.rules.edit import EditRule
from dllm_plugins.rules.entropy_bound import EntropyBoundRule
from dllm_plugins.rules.factor import FactorRule
from dllm_plugins.rules.hierarchical import HierarchicalRule
from dllm_plugins.rules.klass import KlassRule
from dllm_plugins.rules.local_leap import LocalLeapRule
from dllm_plugins.rules.margin import MarginRule
from dllm_plugins.rules.position_aware import PositionAwareRule
from dllm_plugins.rules.quota import QuotaRule
from dllm_plugins.rules.random import RandomRule
from dllm_plugins.rules.slow_fast import SlowFastRule
from dllm_plugins.rules.threshold import ThresholdRule

__all__ = [
    "CanvasView",
    "CommitRule",
    "CreditRule",
    "DoubtRule",
    "EditRule",
    "EntropyBoundRule",
    "FactorRule",
    "HierarchicalRule",
    "KlassRule",
    "LocalLeapRule",
    "MarginRule",
    "PositionAwareRule",
    "QuotaRule",
    "RandomRule",
    "RevocationRule",
    "RuleDefaults",
    "RuleSettings",
    "SlowFastRule",
    "ThresholdRule",
    "most_probable",
    "parameters",
    "revocation_parameters",
]
