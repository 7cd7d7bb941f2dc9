"""Which objective a family was trained with, where its training code could be read."""

from collections.abc import Mapping

from dllm_plugins.errors import OptionError
from dllm_plugins.families.layout import Layout
from dllm_plugins.processes.objectives import OBJECTIVES
from dllm_plugins.processes.objectives import Objective

#: By family; those that are not here have no loss of their own, for a reason.
OF_FAMILY: Mapping[str, str] = {
    "llada": "llada",
    "dream": "dream",
    "diffullama": "diffullama",
    "open_dcoder": "open_dcoder",
    "bert_chat": "dllm_mdlm",
    "sdar": "sdar",
    "sdar_moe": "sdar",
    "llada2": "llada2",
    "fast_dllm_v2": "fast_dllm_v2",
    "llada_moe": "dllm_mdlm",
    "idlm": "idlm",
    "nemotron_labs": "nemotron",
    "wedlm": "wedlm",
    "stable_diffcoder": "stable_diffcoder",
    "diffusion_gemma": "diffusion_gemma",
}
#: By sampler, where checkpoints of a family differ; None for what has no loss of its own.
OF_SAMPLER: Mapping[tuple[str, str], str | None] = {
    ("a2d", "mdlm"): "dllm_mdlm",
    ("a2d", "bd3lm"): "dllm_bd3lm",
    ("dream", "dreamon"): "dreamon",
    ("llada2", "llada2.1"): None,
    ("llada2", "llada2.2"): None,
}
#: Why a family's loss, or that of its checkpoints for a sampler, is not here.
WHY: Mapping[str, str] = {
    "illada": "its training code is not published, and ML-GSAI/LLaDA's README promises none",
    "rnd1": "the loss in RadicalNumerics/RND1 is that of clean text, and its noise is published nowhere",
    "llada2.1": "inclusionAI/dFactory trains LLaDA2.0, and how edits of tokens are learnt is published in no code",
    "llada2.2": "how deletions and splits are learnt is published in no code",
}
#: Attention under which all tokens before one, and none behind it, can be looked at.
_LEFTWARDS = ("causal", "causal context, bidirectional block")
#: Attention of models whose masks stand behind what is known.
REORDERED = "causal, reordered"


def objective_of(layout: Layout, sampler: str, asked: str | Objective | None) -> Objective:
    """How a checkpoint is to be trained.

    :param sampler: the one it was made for.
    :param asked: an objective, or its name; the family's own where None is given.
    :raises OptionError: where the family's own is not known, for a name that is none, and for one that does not
        fit how the family looks at texts.
    """
    if isinstance(asked, Objective):
        return _checked(layout, asked, repr(asked))
    name = OF_SAMPLER.get((layout.name, sampler), OF_FAMILY.get(layout.name)) if asked is None else asked
    if name is None:
        why = WHY.get(sampler, WHY.get(layout.name, "how it was trained could not be read anywhere"))
        raise OptionError(f"no loss of its own for {layout.name} with sampler {sampler!r}: {why}; {_choice(layout)}")
    if name not in OBJECTIVES:
        raise OptionError(f"objective={name!r} is none; {_choice(layout)}")
    return _checked(layout, OBJECTIVES[name], repr(name))


def _checked(layout: Layout, objective: Objective, name: str) -> Objective:
    if not _fits(layout, objective):
        raise OptionError(
            f"objective={name} does not fit {layout.name}, whose attention is {layout.attention} and whose noise is "
            f"{layout.noise}; {_choice(layout)}"
        )
    return objective


def _choice(layout: Layout) -> str:
    fitting = [name for name, objective in OBJECTIVES.items() if _fits(layout, objective)]
    if not fitting:
        return "compute a loss of your own from the logits that forward() gives without labels"
    return f"set model.objective to another one's, {' or '.join(map(repr, fitting))}"


def _fits(layout: Layout, objective: Objective) -> bool:
    if "uniform" in (layout.noise, objective.noise):
        return layout.noise == objective.noise
    if objective.causal:
        return layout.attention in _LEFTWARDS
    if objective.known_first or layout.attention == REORDERED:
        return objective.known_first and layout.attention == REORDERED
    if objective.clean:
        return layout.attention == ("causal" if objective.within == "leftwards" else _LEFTWARDS[1])
    if objective.clean_prefix:
        return layout.attention in ("block-causal", "bidirectional")
    # Of all families one has masks that expand.
    return layout.attention in ("bidirectional", "own") and (not objective.merged or layout.name == "dream")
