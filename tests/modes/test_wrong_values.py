"""Wrong and extreme values of every option of every mode: refused when a request is admitted, or decoded.

Nothing is raised in the middle of a pass, and nobody beside such a request has another answer for it.
"""

import json
import math
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import get_args
from typing import get_origin

import pytest
import torch
from torch import Tensor

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.config import COMMON_OPTIONS
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.engine import Engine
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Failure
from dllm_plugins.families.checkpoint import open_checkpoint
from dllm_plugins.families.spec import make_spec
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.rules.base import RuleSettings
from dllm_plugins.training.solvable import Letters

from ..dllm_transformers.checkpoints import NEEDED as NEEDED_TO_LOAD
from ..golden.cases import FOLDERS
from ..pairs.paired import paired
from .test_admission import BESIDE
from .tiny_models import EOS
from .tiny_models import MASK
from .tiny_models import VOCABULARY
from .tiny_models import Scripted
from .tiny_models import spec

NUMBERS: tuple[Any, ...] = (
    *(0, 1, 3, -1, 1 << 31, 10**30, 0.5, 1e-320, 1e300, "3", math.nan, math.inf, -math.inf, True, "x", [3], {"x": 1}),
)
LISTS: tuple[Any, ...] = (
    *([], [3], [EOS], [0, 1], [5, 1], [0, 1 << 63], [-1], [VOCABULARY], [1 << 63], [1 << 70], [VOCABULARY - 1]),
    *([3] * 2000, [*range(VOCABULARY)], [*range(VOCABULARY - 1)], ["3"], [1, "a"], [1.5], [True], [None], [[3]], 3),
    *([0.1, 0.2, 0.3], [0.0] * 3, [-1.0] * 3, [math.nan] * 3, [math.inf] * 3, {"x": 1}, {3}, "abc"),
)
PROMPT = (1, 2, 5)
#: More passes than any of these answers needs, unless somebody asks for so many.
PASSES = 24
#: What modes need to decode with these ids, or in few passes.
NEEDED: dict[str, dict[str, Any]] = {
    "dreamon": {"expand_token_id": 9},
    "llada2.2": {"max_post_edit_steps": 1},
    "diffusion_gemma": {"steps": 3},
    "flow_uniform": {"steps": 3},
    "diffullama": {"steps": 3},
    "mgdm": {"steps": 3},
}
#: Modes whose noise is no mask.
UNIFORM = ("diffusion_gemma", "flow_uniform")


class Strict(Scripted):
    """Refuses what no embedding has."""

    def forward(self, segments: Sequence[Segment]) -> list[Tensor]:
        for segment in segments:
            assert all(0 <= token < VOCABULARY or token == self.spec.mask_id for token in segment.tokens)
        return super().forward(segments)


def strict(mode: str, **fields: Any) -> Model:
    """It says all manner of things, the same in the same place behind the same text."""
    if mode == "pair":
        return paired(strict("ar"), strict("sdar", attention="block-causal"))
    table = torch.randn(97, VOCABULARY, generator=torch.Generator().manual_seed(0)) * 3
    ids = {"mask_id": VOCABULARY if mode in UNIFORM else MASK, "eos_id": EOS, "pad_id": 0}
    modes = {"alternating": ("alternating", "ar", "diffusion")}.get(mode, (mode,))
    made = spec(mode, **{"modes": modes, **ids, "draft_length": 3, "holds": True, "context": 20, **fields})
    return Model("strict", Strict(lambda seen, place: table[(sum(seen.values()) * 31 + place) % 97], made), Letters())


def request(mode: str, given: Mapping[str, Any]) -> Request:
    """For a short answer; options of the sampler's own are put where they belong.

    :raises OptionError: for options that are none.
    """
    fields = plugins.modes()[mode].settings.model_fields.keys()
    given = {"max_new_tokens": 5, "seed": 1, **NEEDED.get(mode, {}), **given}
    own = {name: value for name, value in given.items() if name in fields - SamplingConfig.model_fields.keys()}
    rest = {name: value for name, value in given.items() if name not in own}
    return Request(PROMPT, SamplingConfig(mode=mode, preset_options=own or None, **rest))


@dataclass(frozen=True)
class Odd:
    """An option and what it needs beside it.

    :param inside: the option that it is a part of, if it is a rule's.
    :param shared: how many modes share its values among them, where the same code reads them.
    """

    name: str
    annotation: Any
    beside: Mapping[str, Any]
    inside: str | None = None
    shared: int = 1

    def given(self, value: Any) -> dict[str, Any]:
        """It with this value."""
        return {**self.beside, **({self.name: value} if self.inside is None else {self.inside: {self.name: value}})}

    def values(self, mode: str) -> tuple[Any, ...]:
        """Those to try in a mode, by what it holds."""
        kinds = {self.annotation, *get_args(self.annotation)}
        found = LISTS if any(get_origin(kind) is tuple for kind in kinds) else NUMBERS
        return found[[*plugins.modes()].index(mode) % self.shared :: self.shared]


def own_options(mode: str) -> Iterator[Odd]:
    """All that its sampler can be told, and of the options of every mode those that are no texts."""
    fields = plugins.modes()[mode].settings.model_fields
    for name, field in {**SamplingConfig.model_fields, **fields}.items():
        if name not in ("mode", "rule_options", "revoke_options") and (name in fields or name in COMMON_OPTIONS):
            beside = {key: value for key, value in BESIDE.get(name, {}).items() if key in fields}
            warm = {"temperature": 1.0} if name in ("top_k", "top_p") and mode != "diffusion_gemma" else {}
            yield Odd(name, field.annotation, beside | warm, shared=1 if name in fields else 4)


def options_of_rules(mode: str) -> Iterator[Odd]:
    """Parameters of all rules that it may follow."""
    for kind, known in (("rule", plugins.rules()), ("revoke", plugins.revocations())):
        for rule, found in known.items() if kind in plugins.modes()[mode].options else ():
            for name, field in getattr(found, "settings", RuleSettings).model_fields.items():
                yield Odd(name, field.annotation, {kind: rule}, f"{kind}_options", 6)


def decoded(engine: Engine, odd: Mapping[int, Any]) -> dict[int, Finish]:
    """Ends of all rows, as far as a few passes bring them."""
    done: dict[int, Finish] = {}
    for _ in range(PASSES):
        for event in engine.step():
            assert not isinstance(event, Failure), (odd.get(event.row), repr(event.error.__cause__))
            if isinstance(event, Finish):
                done[event.row] = event
    for number in engine.active:
        engine.cancel(number)
    return done


def check(mode: str, options: Iterable[Odd]) -> None:
    """Ask for each option with each value, and decode all that is taken beside a request that asks for nothing odd."""
    model = strict(mode)
    engine, plain = model.engine(), request(mode, {})
    number = engine.admit(plain)
    alone = decoded(engine, {number: "alone"})[number]
    for option in options:
        taken: dict[int, Any] = {}
        number = engine.admit(plain)
        for value in option.values(mode):
            try:
                taken[engine.admit(request(mode, option.given(value)))] = (option.name, value)
            except (OptionError, RequestError) as error:
                # A revocation is refused by its own name where no mode that takes turns has any.
                names = (option.name, repr(value), *(option.beside if mode == "alternating" else ()))
                assert any(name in str(error) for name in names), (option, value)
        done = decoded(engine, taken)
        assert done.pop(number).tokens == alone.tokens, (option, taken)
        for row, finish in done.items():
            assert all(0 <= token < VOCABULARY for token in finish.tokens), taken[row]
            assert model.denoiser.spec.mask_id not in finish.tokens, taken[row]


@pytest.mark.parametrize("mode", plugins.modes())
def test_options_of_a_mode(mode: str) -> None:
    """Its sampler's own, and those of every mode."""
    check(mode, own_options(mode))


@pytest.mark.parametrize("mode", [mode for mode, sampler in plugins.modes().items() if "rule" in sampler.options])
def test_parameters_of_rules(mode: str) -> None:
    """Of commit rules and revocations, wherever they are followed."""
    check(mode, options_of_rules(mode))


@pytest.mark.parametrize("case", ["rnd1", "dreamon", "llada2_2_indel", "dream", "sdar"])
@pytest.mark.parametrize("token", [-1, 1 << 20])
def test_ids_that_a_checkpoint_names(case: str, token: int, tmp_path: Path) -> None:
    """None of its vocabulary: as if it named none, for every sampler that asks for them."""
    source, names = FOLDERS[case], ("pad_token_id", "delete_token_id", "split_token_id")
    config = json.loads((source / "checkpoint" / "config.json").read_text())
    mask = json.loads((source / "case.json").read_text()).get("mask_id")
    own = {} if mask is None else {"mask_token_id": mask}
    (tmp_path / "config.json").write_text(json.dumps({**config, **own, **dict.fromkeys(names, token)}))
    (tmp_path / "model.safetensors").touch()
    options: dict[str, Any] = NEEDED_TO_LOAD.get(case, {})
    found = make_spec(case, open_checkpoint(tmp_path), None, LoadOptions(**options), plugins.modes())
    assert not found.ids.keys() & set(names)
    assert found.pad_id is None


@pytest.mark.parametrize("mode", plugins.modes())
def test_checkpoints_that_name_no_ids(mode: str) -> None:
    """A sampler that cannot do without says which it needs."""
    engine = strict(mode, ids={}, eos_id=None, pad_id=None).engine()
    for given in {}, {"padding": 2}, {"padding": 2, "add_eos_at_end": True}:
        if mode == "rnd1" or not given:
            try:
                number = engine.admit(request(mode, {**given, "max_new_tokens": 2}))
            except OptionError as error:
                assert "token_id" in str(error)
            else:
                decoded(engine, {number: given})
