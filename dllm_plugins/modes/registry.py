"""All modes."""

from collections.abc import Mapping

from dllm_plugins.modes import alternating
from dllm_plugins.modes import ar
from dllm_plugins.modes import bd3lm
from dllm_plugins.modes import cached_blocks
from dllm_plugins.modes import diffullama
from dllm_plugins.modes import diffusion
from dllm_plugins.modes import diffusion_gemma
from dllm_plugins.modes import dream
from dllm_plugins.modes import dreamon
from dllm_plugins.modes import fast_dllm_v2
from dllm_plugins.modes import flow
from dllm_plugins.modes import flow_uniform
from dllm_plugins.modes import freedave
from dllm_plugins.modes import idlm
from dllm_plugins.modes import llada
from dllm_plugins.modes import llada2
from dllm_plugins.modes import llada2_edit
from dllm_plugins.modes import llada2_indel
from dllm_plugins.modes import mdlm
from dllm_plugins.modes import mgdm
from dllm_plugins.modes import nemotron
from dllm_plugins.modes import nemotron_linear
from dllm_plugins.modes import open_dcoder
from dllm_plugins.modes import pair
from dllm_plugins.modes import remdm
from dllm_plugins.modes import repair
from dllm_plugins.modes import rnd1
from dllm_plugins.modes import s2d2
from dllm_plugins.modes import saber
from dllm_plugins.modes import scheduled
from dllm_plugins.modes import sdar
from dllm_plugins.modes import speculative
from dllm_plugins.modes import stable_diffcoder
from dllm_plugins.modes import wedlm
from dllm_plugins.modes import wedlm_block
from dllm_plugins.modes import wino
from dllm_plugins.modes.base import Sampler
from dllm_plugins.processes.base import NoiseProcess
from dllm_plugins.rules.base import CommitRule
from dllm_plugins.rules.base import RevocationRule


def samplers(
    rules: Mapping[str, CommitRule],
    revocations: Mapping[str, RevocationRule],
    processes: Mapping[str, NoiseProcess],
) -> list[Sampler]:
    """Every mode of this package; some ask rules what to commit and reopen, or a process what is open."""
    masked = processes["masked"]
    found = [
        speculative.sampler(masked),
        pair.sampler(masked),
        diffusion.sampler(rules, masked),
        ar.SAMPLER,
        *repair.samplers(masked),
        *llada.samplers(rules, revocations),
        cached_blocks.sampler(rules, revocations),
        sdar.SAMPLER,
        dream.SAMPLER,
        dreamon.SAMPLER,
        open_dcoder.SAMPLER,
        rnd1.SAMPLER,
        llada2.SAMPLER,
        llada2_edit.SAMPLER,
        llada2_indel.SAMPLER,
        mdlm.SAMPLER,
        bd3lm.SAMPLER,
        fast_dllm_v2.SAMPLER,
        wedlm.SAMPLER,
        wedlm_block.SAMPLER,
        nemotron.SAMPLER,
        nemotron_linear.SAMPLER,
        nemotron.AR,
        stable_diffcoder.SAMPLER,
        idlm.SAMPLER,
        diffullama.SAMPLER,
        diffusion_gemma.sampler(processes["uniform"]),
        wino.SAMPLER,
        saber.SAMPLER,
        *freedave.SAMPLERS,
        *s2d2.SAMPLERS,
        scheduled.sampler(rules, revocations),
        flow.SAMPLER,
        flow_uniform.sampler(processes["uniform"]),
        remdm.SAMPLER,
        mgdm.SAMPLER,
    ]
    return [*found, alternating.sampler({sampler.name: sampler for sampler in found})]
