"""All reference samplers."""

from collections.abc import Mapping

from dllm_plugins.rules.base import CommitRule
from dllm_plugins.samplers import diffullama
from dllm_plugins.samplers import llada
from dllm_plugins.samplers import sdar
from dllm_plugins.samplers import stable_diffcoder
from dllm_plugins.samplers.base import Sampler


def samplers(rules: Mapping[str, CommitRule]) -> list[Sampler]:
    """Every sampler of this package; some ask a commit rule what to settle."""
    return [*llada.samplers(rules), sdar.SAMPLER, stable_diffcoder.SAMPLER, diffullama.SAMPLER]
