"""What no model can do is refused when a request is admitted, never in the middle of somebody else's pass."""

from collections.abc import Iterator
from typing import Any

import pytest

from dllm_plugins import Finish
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.errors import OptionError
from dllm_plugins.modes.ids import _IDS

from .tiny_models import VOCABULARY
from .tiny_models import random_model
from .tiny_models import says
from .tiny_models import scripted_model

#: What goes with an option that does nothing alone.
BESIDE: dict[str, dict[str, Any]] = {
    "cfg_keep_tokens": {"guidance": 1.0},
    "end_think_token_id": {"max_thinking_tokens": 3},
    "eos_token_id": {"add_eos_at_end": True, "expand_token_id": 9},
}


def naming_ids() -> Iterator[tuple[str, str]]:
    """(sampler, option) of every option that names token ids."""
    for name, sampler in sorted(plugins.modes().items()):
        for option, field in sampler.settings.model_fields.items():
            if _IDS in field.metadata:
                yield name, option


@pytest.mark.parametrize(("mode", "option"), [*naming_ids()])
@pytest.mark.parametrize("token", [-1, VOCABULARY, 2**31, 2**63, 2**70])
def test_ids_outside_the_vocabulary(mode: str, option: str, token: int) -> None:
    """For every sampler and every option that names ids: refused by name."""
    model = scripted_model(lambda _tokens, _place: says(9), mode)
    fields = plugins.modes()[mode].settings.model_fields
    value = token if fields[option].annotation == int | None else [3, token]
    given = {option: value} | {name: x for name, x in BESIDE.get(option, {}).items() if name in fields}
    own = {name: given.pop(name) for name in [*given] if name in SamplingConfig.model_fields}
    with pytest.raises(OptionError, match=option):
        model.engine().admit(Request([1, 2], SamplingConfig(mode=mode, **own, preset_options=given)))


def test_every_id_suppressed() -> None:
    """Nothing would be left to draw."""
    config = SamplingConfig(mode="llada", preset_options={"suppress_tokens": [*range(VOCABULARY)]})
    with pytest.raises(OptionError, match="suppress_tokens names all"):
        random_model("llada").engine().admit(Request([1, 2], config))


def test_the_marked_options_are_those_that_name_ids() -> None:
    """A new option that names ids has to be marked, or to be checked by its sampler's own `fit`."""
    own = {"expand_token_id", "decoder_input_ids"}
    for sampler in plugins.modes().values():
        fields = sampler.settings.model_fields
        like = {name for name in fields if name.endswith(("_id", "_ids", "suppress_tokens", "late_tokens"))}
        assert like - own <= {name for name, field in fields.items() if _IDS in field.metadata}


def test_the_end_of_the_context_is_a_reason_of_its_own() -> None:
    """Less room than was asked for: the answer says so; room enough, or a prompt that ends it: it does not."""
    for mode in ("ar", "llada"):
        engine = random_model(mode).engine()

        def reason(length: int, engine: Any = engine, mode: str = mode) -> Finish:
            config = SamplingConfig(mode=mode, max_new_tokens=length)
            finish: Finish = engine.generate([Request([5] * 120, config, stop_ids=frozenset())])[0]
            return finish

        assert [(reason(length).reason, len(reason(length).tokens)) for length in (7, 8, 9, 256)] == [
            ("length", 7),
            ("length", 8),
            ("context", 8),
            ("context", 8),
        ]


def test_a_suffix_is_no_part_of_what_was_committed() -> None:
    """It is given: neither open nor an answer."""
    engine = random_model("llada").engine()
    for suffix in ((), (7, 8, 9)):
        config = SamplingConfig(mode="llada", max_new_tokens=4, block_length=4)
        usage = engine.generate([Request([5, 6], config, stop_ids=frozenset(), suffix=suffix)])[0].usage
        assert (usage.useful_tokens, usage.canvas_tokens) == (4, 4)
