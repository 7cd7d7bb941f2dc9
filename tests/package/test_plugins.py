"""Plug-ins: every hook is documented and tested, and a broken plug-in never kills the host."""

import re
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pluggy
import pytest
import torch
from torch import Tensor

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import hookimpl
from dllm_plugins import hookspecs
from dllm_plugins import load_model
from dllm_plugins import plugins
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.check import first_load
from dllm_plugins.denoisers import Denoiser
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import PluginError
from dllm_plugins.models import Adapter
from dllm_plugins.models import Backend
from dllm_plugins.models import Chosen
from dllm_plugins.models import Family
from dllm_plugins.models import LoadOptions
from dllm_plugins.models import Preset
from dllm_plugins.models import auto_backend
from dllm_plugins.modes import ar
from dllm_plugins.modes.base import Sampler
from dllm_plugins.processes.masked import MaskedProcess
from dllm_plugins.rules import CanvasView
from dllm_plugins.rules import CommitRule
from dllm_plugins.rules import RevocationRule
from dllm_plugins.rules import RuleSettings

from ..golden.cases import CLONED

HOOKS = [name for name in vars(hookspecs) if name.startswith("register_")]


class LeftmostRule:
    """Commit the leftmost open position."""

    name = "leftmost"
    options: frozenset[str] = frozenset()
    summary = "one position a pass, left to right"

    def decide(self, view: CanvasView, configs: tuple[SamplingConfig, ...], state: Any) -> tuple[Tensor, Any]:
        first = view.open.int().argmax(-1)
        one = torch.nn.functional.one_hot(first, view.open.shape[-1]).bool()
        return one & view.open & (view.committed_now == 1)[:, None], state


class NewestRule:
    """Take back the rightmost committed token, once a row."""

    name = "newest"
    summary = "the rightmost committed token, once"
    needs: frozenset[str] = frozenset()
    settings = RuleSettings
    replaces = False

    def revoke(self, view: CanvasView, configs: tuple[SamplingConfig, ...], state: Any) -> tuple[Tensor, Any]:
        done = torch.zeros(len(view.open), 1, dtype=torch.bool) if state is None else state
        last = view.committed & (view.committed.cumsum(1) == view.committed.sum(1, keepdim=True)) & ~done
        return last, done | last.any(1, keepdim=True)


#: AR under another name.
SLOW = replace(ar.SAMPLER, name="diffusion-slow")


def build_abacus() -> Denoiser:
    raise PluginError("beads")


class ThirdParty:
    """A plug-in that uses every hook."""

    @hookimpl
    def register_families(self) -> list[Family]:
        return [Family("toy", frozenset({"toy"}), "a toy", lambda options: load_model("dllm"))]

    @hookimpl
    def register_processes(self) -> list[MaskedProcess]:
        return [MaskedProcess(name="masked-too")]

    @hookimpl
    def register_rules(self) -> list[CommitRule]:
        return [LeftmostRule()]

    @hookimpl
    def register_revocations(self) -> list[RevocationRule]:
        return [NewestRule()]

    @hookimpl
    def register_modes(
        self,
        rules: Mapping[str, CommitRule],
        revocations: Mapping[str, RevocationRule],
        processes: Mapping[str, MaskedProcess],
    ) -> list[Sampler]:
        assert "leftmost" in rules
        assert "newest" in revocations
        assert "masked-too" in processes
        return [SLOW]

    @hookimpl
    def register_denoisers(self) -> list[Backend]:
        return [Backend("abacus", "by hand", build_abacus)]

    @hookimpl
    def register_models(self) -> list[Preset]:
        def load(options: LoadOptions) -> Model:
            raise PluginError("the toy model was asked for")

        return [
            Preset("toy", "a toy", load),
            Preset("picky", "a toy", load, lambda options: Chosen(options.dtype, "so")),
        ]

    @hookimpl
    def register_adapters(self) -> list[Adapter]:
        return [Adapter("toy", "toy_adapter", "a toy host")]


@pytest.fixture
def manager() -> Iterator[pluggy.PluginManager]:
    """The manager, with whatever a test registers taken out again."""
    found = plugins.manager()
    before = set(found.get_plugins())
    yield found
    for plugin in set(found.get_plugins()) - before:
        found.unregister(plugin)


@pytest.fixture
def third_party(manager: pluggy.PluginManager) -> ThirdParty:
    """A registered third-party plug-in."""
    plugin = ThirdParty()
    manager.register(plugin, name="third-party")
    return plugin


def test_every_hook_is_documented_and_tested() -> None:
    """docs/plugins.md has a heading for each hook, and the plug-in of these tests implements each."""
    text = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
    assert HOOKS
    for hook in HOOKS:
        assert f"### `{hook}" in text, hook
        assert hasattr(ThirdParty, hook), hook
        assert getattr(hookspecs, hook).__doc__, hook


@pytest.mark.parametrize(
    ("collect", "name"),
    [
        (plugins.families, "toy"),
        (plugins.processes, "masked-too"),
        (plugins.rules, "leftmost"),
        (plugins.revocations, "newest"),
        (plugins.modes, "diffusion-slow"),
        (plugins.backends, "abacus"),
        (plugins.presets, "toy"),
        (plugins.adapters, "toy"),
    ],
    ids=HOOKS,
)
def test_every_hook_reaches_the_engine(third_party: ThirdParty, collect: Any, name: str) -> None:
    """What a plug-in registers is found beside the built-ins."""
    assert name in collect()
    assert len(collect()) > 1


def test_a_third_party_rule_decodes(third_party: ThirdParty, tiny: Model) -> None:
    """A rule of somebody else's is reachable by name: two tokens a pass, left to right."""
    config = SamplingConfig(mode="diffusion", rule="leftmost", max_new_tokens=12)
    usage = tiny.engine().generate([Request([5, 6, 7], config)])[0].usage
    assert usage.total_passes == 6


def page_names() -> dict[str, Any]:
    """What the blocks of docs/plugins.md define."""
    names: dict[str, Any] = {}
    text = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(block, names)
    return names


def test_the_rule_of_the_docs_decodes(manager: pluggy.PluginManager, tiny: Model) -> None:
    """A higher entropy commits more a pass; a parameter it does not have is refused."""

    class Page:
        register_rules = staticmethod(page_names()["register_rules"])

    manager.register(Page(), name="page")
    passes = []
    for nats in (0.001, 100.0):
        config = SamplingConfig(mode="diffusion", rule="calm", rule_options={"nats": nats}, max_new_tokens=24)
        finish = tiny.engine().generate([Request([5, 6, 7], config, stop_ids=frozenset())])[0]
        assert len(finish.tokens) == 24
        passes.append(finish.usage.total_passes)
    assert passes[0] == 24
    assert passes[1] < 12
    with pytest.raises(OptionError, match=r"'calm'.*nats"):
        tiny.engine().generate([Request([5], config.with_options(rule_options={"watts": 1}))])


def test_the_mode_of_the_docs_decodes(manager: pluggy.PluginManager) -> None:
    """A checkpoint that sees both ways has it as a mode: two positions a pass, from the last one on."""

    class Page:
        register_modes = staticmethod(page_names()["register_modes"])

    manager.register(Page(), name="page")
    case = Case(CLONED["llada_dense"])
    model = load_model(str(case.folder / "checkpoint"), device="cpu", dtype="float32", **first_load(case))
    assert "backwards" in model.denoiser.spec.modes
    config = SamplingConfig(mode="backwards", max_new_tokens=7, preset_options={"at_once": 2})
    engine = model.engine()
    number = engine.admit(Request([5, 6, 7], config, stop_ids=frozenset()))
    canvas = engine._jobs[number].running.canvas
    seen = []
    while engine.active:
        engine.step()
        seen.append("".join("_" if token == canvas.mask else "x" for token in canvas.tokens[3:]))
    assert seen == ["_____xx", "___xxxx", "_xxxxxx", "xxxxxxx"]
    with pytest.raises(OptionError, match="luck=1"):
        engine.admit(Request([5], config.with_options(preset_options={"luck": 1})))


def test_a_third_party_revocation_is_known(third_party: ThirdParty, tiny: Model) -> None:
    """It is found by name, and refused where tokens cannot be taken back."""
    assert plugins.revocations()["newest"].summary
    with pytest.raises(OptionError, match="revoke='newest' has no effect in mode 'diffusion"):
        tiny.engine().generate([Request([5, 6, 7], SamplingConfig(mode="diffusion", revoke="newest"))])


def test_a_third_party_model_is_loaded_by_name(third_party: ThirdParty) -> None:
    """load_model calls the preset that was registered."""
    with pytest.raises(PluginError, match="the toy model was asked for"):
        load_model("toy")


def test_a_third_party_model_tells_its_backend(third_party: ThirdParty) -> None:
    """From the load options, if it has a choice."""
    assert auto_backend("picky", dtype="float32") == Chosen("float32", "so")
    assert auto_backend("toy").backend == "its own"
    with pytest.raises(OptionError, match="unknown option luck=1"):
        auto_backend("picky", luck=1)


def test_a_failing_hook_is_reported_and_skipped(manager: pluggy.PluginManager) -> None:
    """The warning names the plug-in; the built-ins go on."""

    class Broken:
        @hookimpl
        def register_rules(self) -> list[CommitRule]:
            raise RuntimeError("no rules today")

    manager.register(Broken(), name="broken-distribution")
    with pytest.warns(UserWarning, match="broken-distribution failed: RuntimeError\\('no rules today'\\)"):
        assert "threshold" in plugins.rules()


def test_two_owners_of_one_name_are_refused(manager: pluggy.PluginManager) -> None:
    """Nobody silently replaces a built-in."""

    class Copycat:
        @hookimpl
        def register_rules(self) -> list[CommitRule]:
            rule = LeftmostRule()
            rule.name = "threshold"
            return [rule]

    manager.register(Copycat(), name="copycat")
    with pytest.raises(PluginError, match="'threshold' is registered by both"):
        plugins.rules()


class FakeDistribution:
    """A distribution with a name."""

    name = "somebody-elses-package"


def test_a_plug_in_that_does_not_import_is_reported_and_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading names the distribution and leaves the rest alone; DLLM_LOAD_PLUGINS limits what is loaded."""
    point = EntryPoint("broken", "no_such_module_at_all", plugins.ENTRY_POINTS)._for(FakeDistribution())  # type: ignore[attr-defined]
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    with pytest.warns(UserWarning, match="somebody-elses-package failed to load and is skipped"):
        plugins._load_third_party(pluggy.PluginManager("dllm_plugins"))
    monkeypatch.setenv("DLLM_LOAD_PLUGINS", "another-package")
    plugins._load_third_party(pluggy.PluginManager("dllm_plugins"))
