"""Translations of the references' arguments, one module per group of samplers."""

from dllm_plugins.conformance.play import Translate
from dllm_plugins.conformance.plays import dllm
from dllm_plugins.conformance.plays import gemma
from dllm_plugins.conformance.plays import llada
from dllm_plugins.conformance.plays import llada2
from dllm_plugins.conformance.plays import nemotron
from dllm_plugins.conformance.plays import sdar
from dllm_plugins.conformance.plays import seeded
from dllm_plugins.conformance.plays import shifted
from dllm_plugins.conformance.plays import stable_diffcoder

#: By the reference's own name for its sampler.
PLAYS: dict[str, Translate] = {
    **gemma.PLAYS,
    **llada.PLAYS,
    **llada2.PLAYS,
    **dllm.PLAYS,
    **sdar.PLAYS,
    **seeded.PLAYS,
    **nemotron.PLAYS,
    **shifted.PLAYS,
    **stable_diffcoder.PLAYS,
}
