"""Which settings of which rules and samplers take part: found in the registries, not listed here.

A rule registered tomorrow takes part by itself: with its defaults, and at every value that
the tables below give for the names of its parameters.
"""

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.modes.base import Sampler

#: Values to try of a parameter, by its name, wherever a rule or a sampler has it.
KNOBS: dict[str, tuple[Any, ...]] = {
    "threshold": (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99),
    "factor": (0.25, 0.5, 1.0, 1.5, 2.0, 4.0),
    "steps": (8, 4, 2, 1),
    "draft_length": (2, 4, 6),
}
#: Values of one rule's, revocation rule's or sampler's parameter, in place of those above; none leaves it alone.
OWN: dict[tuple[str, str], tuple[Any, ...]] = {
    ("entropy_bound", "gamma"): (0.01, 0.03, 0.1, 0.3, 1.0, 2.0),
    ("hierarchical", "low_threshold"): (0.3, 0.5, 0.7),
    ("local_leap", "relaxed"): (0.5, 0.6, 0.85),
    ("klass", "divergence"): (0.001, 0.1),
    ("credit", "alpha"): (0.3, 1.5),
    ("position_aware", "decay"): (0.0, 0.25, 1.0),
    ("slow_fast", "slow"): (2,),
    ("doubt", "threshold"): (0.05, 0.2, 0.5),
    ("edit", "edit_threshold"): (0.5, 0.7),
    ("flow", "steps"): (64, 32, 16, 8, 4, 2),
    ("flow", "corrector"): (1.0, 4.0),
    ("remdm", "steps"): (64, 32, 16, 8, 4, 2),
    ("remdm", "eta"): (0.02, 0.2),
    ("freedave", "draft_steps"): (2, 4, 8),
    ("ssd", "draft_steps"): (2, 4, 8),
    ("wino", "threshold_back"): (0.5, 0.7, 0.95),
}
#: Temperatures other than 0: samplers of a process draw from it, and slow decoding draws beside them.
TEMPERATURES: dict[str, tuple[float, ...]] = {"slow": (0.0, 1.0), "mode flow": (1.0,), "mode remdm": (1.0,)}
#: The setting of a contestant that is told nothing.
DEFAULTS = "defaults"
#: The rule that commits one token a pass, beside which all are judged.
SLOW = "quota"
#: Thresholds of the commit rule that revocation rules are tried with: hasty enough to have something to undo.
HASTY = (0.5, 0.7)


@dataclass(frozen=True, slots=True)
class Contestant:
    """One setting.

    :param method: the curve it belongs to.
    :param setting: what tells it from others on that curve.
    :param options: of SamplingConfig.
    """

    method: str
    setting: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Both in one word."""
        return f"{self.method} {self.setting}".strip()


def fine(method: str, parameters: set[str]) -> list[tuple[str, Any]]:
    """The parameters to turn, one at a time, and the values to turn them to."""
    known = {name: OWN.get((method, name), KNOBS.get(name, ())) for name in sorted(parameters)}
    return [(name, value) for name, tried in known.items() for value in tried]


def coarse(method: str, parameters: set[str]) -> list[tuple[str, Any]]:
    """Every other value, for models whose passes cost more."""
    known = {name: OWN.get((method, name), KNOBS.get(name, ())) for name in sorted(parameters)}
    return [(name, value) for name, tried in known.items() for value in tried[::2]]


#: Which values to try, given a method and its parameters.
Values = Callable[[str, set[str]], list[tuple[str, Any]]]


def of_rule(rule: Any, mode: str, tried: Values = fine) -> list[Contestant]:
    """A commit rule at its defaults and at every value of its parameters."""
    shared = {"mode": mode, "rule": rule.name}
    settings = set(rule.settings.model_fields) if hasattr(rule, "settings") else set()
    found = [Contestant(rule.name, DEFAULTS, shared)]
    for name, value in tried(rule.name, set(rule.options) | settings):
        own = {"rule_options": {name: value}} if name in settings else {name: value}
        found.append(Contestant(rule.name, f"{name}={value}", shared | own))
    return found


def of_revocation(revocation: Any, mode: str, tried: Values) -> list[Contestant]:
    """A revocation rule behind hasty commit rules."""
    method, found = f"revoke {revocation.name}", []
    for haste in HASTY:
        shared = {"mode": mode, "rule": "threshold", "threshold": haste, "revoke": revocation.name}
        found.append(Contestant(method, f"after threshold={haste}", shared))
        for name, value in tried(revocation.name, set(revocation.settings.model_fields)):
            setting = f"{name}={value} after threshold={haste}"
            found.append(Contestant(method, setting, shared | {"revoke_options": {name: value}}))
    return found


def of_mode(mode: str, sampler: Sampler, tried: Values) -> list[Contestant]:
    """A mode that follows no commit rule, likewise."""
    names = set(sampler.settings.model_fields)
    method, shared = f"mode {mode}", {"mode": mode}
    found = [Contestant(method, DEFAULTS, shared)]
    for name, value in tried(mode, names):
        own = {name: value} if name in SamplingConfig.model_fields else {"preset_options": {name: value}}
        found.append(Contestant(method, f"{name}={value}", shared | own))
    return found


def modes(spec: ModelSpec) -> dict[str, Sampler]:
    """The model's modes, each sampler once: under its own name if it has one."""
    known = plugins.modes()
    found: dict[str, tuple[str, Sampler]] = {}
    for mode in spec.modes:
        sampler = known[spec.samplers.get(mode, mode)]
        found[sampler.name] = (mode, sampler)
    return dict(found.values())


def ruled_mode(spec: ModelSpec) -> str:
    """The mode that every commit rule is tried in: the first that takes one.

    :raises OptionError: if the model has none.
    """
    for mode, sampler in modes(spec).items():
        if "rule" in sampler.options:
            return mode
    raise OptionError(f"no mode of {spec.name} takes a commit rule; its modes: {', '.join(spec.modes)}")


def slow(spec: ModelSpec) -> Contestant:
    """One token a pass."""
    return Contestant("slow", "", {"mode": ruled_mode(spec), "rule": SLOW})


def heated(contestant: Contestant) -> list[Contestant]:
    """A contestant at the temperatures of its method, each a curve of its own."""
    found = []
    for heat in TEMPERATURES.get(contestant.method, (0.0,)):
        method = f"{contestant.method}, temperature {heat:g}" if heat else contestant.method
        options = {**contestant.options, "temperature": heat} if heat else contestant.options
        found.append(Contestant(method, contestant.setting, options))
    return found


def contestants(spec: ModelSpec, *, drawn: bool, tried: Values = fine) -> tuple[list[Contestant], dict[str, str]]:
    """All that can run on this model, and why the others cannot.

    :param tried: how finely to turn their parameters.
    :param drawn: with those that draw, whose answers only a checker can judge.
    """
    ruled, known = ruled_mode(spec), modes(spec)
    found = [slow(spec)]
    for rule in plugins.rules().values():
        found += of_rule(rule, ruled, tried)
    if "revoke" in known[ruled].options:
        for revocation in plugins.revocations().values():
            found += of_revocation(revocation, ruled, tried)
    for mode, sampler in known.items():
        if mode != ruled:
            found += of_mode(mode, sampler, tried)
    fitting, refused = [], {}
    for contestant in (warm for cold in found for warm in heated(cold)):
        if "temperature" in contestant.options and not drawn:
            continue
        config = SamplingConfig(**contestant.options)
        try:
            known[str(config.mode)].check(config, spec)
            fitting.append(contestant)
        except OptionError as error:
            refused[contestant.name] = str(error)
    return fitting, refused
