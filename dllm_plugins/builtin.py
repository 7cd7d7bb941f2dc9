"""The built-ins, registered through the same hooks as everybody else's plug-ins."""

from collections.abc import Mapping

from dllm_plugins.default_model import load as default_model
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layouts import LAYOUTS
from dllm_plugins.hookspecs import hookimpl
from dllm_plugins.models import Adapter
from dllm_plugins.models import Backend
from dllm_plugins.models import Preset
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.registry import samplers
from dllm_plugins.presets.shipped import shipped
from dllm_plugins.processes.base import NoiseProcess
from dllm_plugins.processes.masked import MaskedProcess
from dllm_plugins.processes.uniform import UniformProcess
from dllm_plugins.rules import CommitRule
from dllm_plugins.rules import CreditRule
from dllm_plugins.rules import DoubtRule
from dllm_plugins.rules import EditRule
from dllm_plugins.rules import EntropyBoundRule
from dllm_plugins.rules import FactorRule
from dllm_plugins.rules import HierarchicalRule
from dllm_plugins.rules import KlassRule
from dllm_plugins.rules import LocalLeapRule
from dllm_plugins.rules import MarginRule
from dllm_plugins.rules import PositionAwareRule
from dllm_plugins.rules import QuotaRule
from dllm_plugins.rules import RandomRule
from dllm_plugins.rules import RevocationRule
from dllm_plugins.rules import SlowFastRule
from dllm_plugins.rules import ThresholdRule


@hookimpl
def register_families() -> list[Layout]:
    """Kinds of checkpoints in their original formats; docs/families.md lists them."""
    return [*LAYOUTS.values()]


@hookimpl
def register_processes() -> list[NoiseProcess]:
    """Masked and uniform noise."""
    return [MaskedProcess(), UniformProcess()]


@hookimpl
def register_rules() -> list[CommitRule]:
    """Those by probability and count, by other measures, and those that remember."""
    return [
        ThresholdRule(),
        FactorRule(),
        QuotaRule(),
        RandomRule(),
        EntropyBoundRule(),
        MarginRule(),
        PositionAwareRule(),
        HierarchicalRule(),
        LocalLeapRule(),
        KlassRule(),
        CreditRule(),
        SlowFastRule(),
    ]


@hookimpl
def register_revocations() -> list[RevocationRule]:
    """Rules that reopen committed tokens, or overwrite them."""
    return [DoubtRule(), EditRule()]


@hookimpl
def register_modes(
    rules: Mapping[str, CommitRule],
    revocations: Mapping[str, RevocationRule],
    processes: Mapping[str, NoiseProcess],
) -> list[Sampler]:
    """The three modes of the default model, and every family's own sampler."""
    return samplers(rules, revocations, processes)


@hookimpl
def register_denoisers() -> list[Backend]:
    """What computes the default model's passes."""
    return [default_model.AUTO, default_model.KERNELS, default_model.TORCH, default_model.LLAMA_CPP]


@hookimpl
def register_models() -> list[Preset]:
    """The default model `dllm`, and the puzzle models."""
    return [default_model.DEFAULT, *shipped()]


@hookimpl
def register_adapters() -> list[Adapter]:
    """The hosts this distribution comes with."""
    return [
        Adapter("transformers", "dllm_transformers", "a custom_generate strategy for model.generate()"),
        Adapter("langchain", "langchain_dllm", "ChatDLLM for LangChain"),
        Adapter("llm", "llm_dllm", "models and `llm dllm` commands for the llm command line tool"),
    ]
