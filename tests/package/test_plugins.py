"""Plug-ins: every hook is documented and tested, and a broken plug-in never kills the host."""

import copy
import json
import shutil
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pluggy
import pytest
import torch
from click.testing import CliRunner
from llm.cli import cli
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from transformers import Qwen3Config
from transformers import Qwen3ForCausalLM

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import hookimpl
from dllm_plugins import hookspecs
from dllm_plugins import load_model
from dllm_plugins import plugins
from dllm_plugins.commands.info import info
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.check import first_load
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import PluginError
from dllm_plugins.models import Chosen
from dllm_plugins.models import auto_backend
from dllm_plugins.rules import CommitRule
from dllm_transformers import registering
from langchain_dllm import ChatDLLM

from ..golden.cases import CLONED
from .third_party import NOISED
from .third_party import TINY
from .third_party import LeftmostRule
from .third_party import ThirdParty
from .third_party import page_names

HOOKS = [name for name in vars(hookspecs) if name.startswith("register_")]


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
        (plugins.families, "pocket"),
        (plugins.processes, "masked-too"),
        (plugins.rules, "leftmost"),
        (plugins.revocations, "newest"),
        (plugins.modes, "diffusion-too"),
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


def decoded(model: Model, **options: Any) -> Finish:
    """An answer of twelve tokens, whatever stands in it."""
    config = SamplingConfig(**{"max_new_tokens": 12, **options})
    return model.engine().generate([Request(model.encode_text("why?"), config, stop_ids=frozenset())])[0]


@pytest.fixture
def pocket(third_party: ThirdParty, tiny_folder: Path, tmp_path: Path) -> Path:
    """A checkpoint of the family of docs/plugins.md, as its owners would publish it."""
    config: dict[str, Any] = {"vocab_size": 259, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256}
    torch.manual_seed(0)
    weights = Qwen3ForCausalLM(Qwen3Config(**config)).state_dict()
    own = {name.replace("lm_head.", "pocket.head.").replace("model.", "pocket."): weights[name] for name in weights}
    place = tmp_path / "pocket"
    place.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in own.items()}, place / "model.safetensors")
    about = {"architectures": ["PocketForDiffusion"], "model_type": "pocket", "positions": "rotary"}
    (place / "config.json").write_text(json.dumps({**about, **config}))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_folder / name, place)
    return place


def test_a_third_party_family_is_loaded_and_decodes(pocket: Path) -> None:
    """By load_model, with the sampler that it names and those that fit it; what contradicts it is refused."""
    model = load_model(str(pocket), dtype="float32", device="cpu")
    found = decoded(model, block_length=4)
    assert (len(found.tokens), found.usage.passes) == (12, {"predict": 12})
    assert found.text == model.tokenizer.decode(list(found.tokens))
    assert 258 not in found.tokens
    assert copy.deepcopy(plugins.families()["pocket"]) is not None
    config = json.loads((pocket / "config.json").read_text())
    (pocket / "config.json").write_text(json.dumps({**config, "positions": "learnt"}))
    with pytest.raises(CheckpointError, match="positions='learnt'"):
        load_model(str(pocket))


def test_a_third_party_family_in_every_host(pocket: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the Auto classes, in llm and in LangChain: the same answer."""
    registering.register()
    model = load_model(str(pocket), dtype="float32", device="cpu")
    chat = model.encode_chat([{"role": "user", "content": "why?"}])
    config = SamplingConfig(max_new_tokens=8)
    expected = model.engine().generate([Request(chat, config, stop_ids=frozenset())])[0]
    auto: Any = AutoModelForCausalLM.from_pretrained(pocket, dtype=torch.float32)
    ids = auto.generate(torch.tensor([chat]), max_new_tokens=8, do_sample=False, eos_token_id=[999])
    assert ids[0, len(chat) :].tolist() == list(expected.tokens)
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    monkeypatch.setenv("DLLM_DTYPE", "float32")
    asked = ["-m", str(pocket), "why?", "-o", "max_tokens", "8"]
    # A path is known as a model by the command that names it.
    monkeypatch.setattr("sys.argv", ["llm", *asked])
    shown = CliRunner().invoke(cli, asked)
    assert shown.exit_code == 0, shown.output
    added = CliRunner().invoke(cli, ["dllm", "add", str(pocket), "--name", "pocket"])
    assert added.exit_code == 0, added.output
    assert "pocket" in CliRunner().invoke(cli, ["dllm", "models"]).output
    text = ChatDLLM(model=str(pocket), dtype="float32", max_tokens=8).invoke("why?").text
    assert shown.stdout.rstrip("\n").encode(errors="replace") == text.rstrip("\n").encode(errors="replace")


def test_third_party_rules_and_modes_on_a_third_party_family(pocket: Path) -> None:
    """A commit rule, a revocation, a mode and its process all decide what is decoded."""
    model = load_model(str(pocket), dtype="float32", device="cpu")
    assert decoded(model, revoke="newest").usage.total_passes == decoded(model).usage.total_passes + 1
    assert decoded(model, rule="calm", rule_options={"nats": 9.0}).usage.total_passes == 1
    NOISED.clear()
    assert len(decoded(model, mode="diffusion-too", rule="leftmost").tokens) == 12
    assert NOISED


def test_a_third_party_backend_computes(third_party: ThirdParty, tiny_folder: Path) -> None:
    """It is asked for by name, and what it builds decodes."""
    given: dict[str, Any] = {"base": tiny_folder, "denoiser": tiny_folder.parent / "denoiser.safetensors"}
    own = load_model("dllm", backend="abacus", dtype="float32", device="cpu", **given)
    other = load_model("dllm", backend="torch", dtype="float32", device="cpu", **given)
    assert own.denoiser.spec.numerics == "approximate"
    assert decoded(own).tokens == decoded(other).tokens


def test_a_third_party_model_is_loaded_by_name(third_party: ThirdParty, tiny_folder: Path) -> None:
    """load_model calls the preset that was registered, and its model decodes."""
    with pytest.raises(PluginError, match="the toy model was asked for"):
        load_model("toy")
    TINY[:] = [tiny_folder]
    assert len(decoded(load_model("tiny", denoiser=tiny_folder.parent / "denoiser.safetensors")).tokens) == 12


def test_a_third_party_host_is_listed(third_party: ThirdParty) -> None:
    """Where people look for what there is."""
    assert "toy (toy_adapter)" in CliRunner().invoke(info).stdout


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
