"""The switch `stats`: seconds by part, and nothing measured without it."""

import time
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import pytest
from torch import Tensor

from dllm_plugins import Engine
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.base import completed
from dllm_plugins.engine.profile import ENGINE
from dllm_plugins.engine.profile import FORWARD
from dllm_plugins.engine.profile import HEAD
from dllm_plugins.engine.profile import PARTS
from dllm_plugins.engine.profile import Stopwatch
from dllm_plugins.engine.profile import table

PROMPT = [9, 8, 7]


class Told:
    """A denoiser that tells what its forwards are made of: half of each is attention, a quarter linear layers."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.asked = 0
        self._spent = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def forward(self, segments: Sequence[Segment]) -> list[Tensor]:
        began = time.perf_counter()
        found: list[Tensor] = self.inner.forward(segments)
        self._spent += time.perf_counter() - began
        return found

    def timings(self) -> Mapping[str, float]:
        self.asked += 1
        spent, self._spent = self._spent, 0.0
        return {"attention": spent / 2, "linear": spent / 4, "head": 100.0}


def engine_of(model: Model, denoiser: Any) -> Engine:
    return Engine(denoiser, model.tokenizer, model.engine().modes)


@pytest.mark.parametrize("mode", ["ar", "speculative", "diffusion"])
def test_parts_add_up_and_fit_into_the_seconds(tiny: Model, mode: str) -> None:
    """Every part is there, none is negative, the model's own are not zero; all of them fit into `seconds`."""
    config = SamplingConfig(mode=mode, max_new_tokens=20, stats=True)
    usage = tiny.engine().generate([Request(PROMPT, config)])[0].usage
    assert usage.parts is not None
    # What the denoiser can tell of its forward, forward/..., depends on the machine.
    own = {name: seconds for name, seconds in usage.parts.items() if "/" not in name}
    assert own.keys() == PARTS.keys()
    assert min(own.values()) > 0
    # The last pass's engine part ends a little after the answer does.
    outside = sum(own.values()) - own[ENGINE]
    assert outside < usage.seconds
    assert usage.as_dict()["parts"].keys() == usage.parts.keys()


def test_nothing_is_measured_without_it(tiny: Model) -> None:
    """The denoiser is not asked, and the figures have no such field."""
    told = Told(tiny.denoiser)
    usage = engine_of(tiny, told).generate([Request(PROMPT, SamplingConfig(max_new_tokens=9))])[0].usage
    assert told.asked == 0
    assert usage.parts is None
    assert "parts" not in usage.as_dict()


@pytest.mark.parametrize("mode", ["ar", "speculative", "diffusion"])
def test_the_text_is_the_same(tiny: Model, mode: str) -> None:
    """Measuring changes no token."""
    config = SamplingConfig(mode=mode, max_new_tokens=30, temperature=0.8, seed=5)
    plain, measured = (
        tiny.engine().generate([Request(PROMPT, config.with_options(stats=stats))])[0] for stats in (False, True)
    )
    assert plain.tokens == measured.tokens
    assert plain.usage.passes == measured.usage.passes


def test_a_denoiser_explains_its_forward(tiny: Model) -> None:
    """What it tells becomes parts of `forward`, the rest is `other`; its word on the head is left out."""
    config = SamplingConfig(max_new_tokens=20, stats=True)
    parts = engine_of(tiny, Told(tiny.denoiser)).generate([Request(PROMPT, config)])[0].usage.parts
    assert parts is not None
    inside = {name: seconds for name, seconds in parts.items() if "/" in name}
    assert inside.keys() == {"forward/attention", "forward/linear", "forward/other"}
    assert sum(inside.values()) == pytest.approx(parts[FORWARD])
    assert inside["forward/attention"] == pytest.approx(2 * inside["forward/linear"])
    assert parts[HEAD] < 100


def test_only_those_who_ask_are_told(tiny: Model) -> None:
    """Of two rows in the same passes, one asks."""
    requests = [Request(PROMPT, SamplingConfig(max_new_tokens=9, stats=stats)) for stats in (True, False)]
    asked, other = tiny.engine().generate(requests)
    assert asked.usage.parts is not None
    assert other.usage.parts is None


def test_inner_parts_are_not_counted_twice(monkeypatch: pytest.MonkeyPatch, tiny: Model) -> None:
    """A clock that ticks once a look: every part owns the looks that ended while it ran."""
    ticks = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    watch = Stopwatch(completed(tiny.denoiser))
    with watch.part("rules"), watch.part("head"):
        pass
    found = watch.stop()
    assert (found["engine"], found["rules"], found["head"]) == (2.0, 2.0, 1.0)
    assert sum(found.values()) == 5.0


def test_a_table_for_people() -> None:
    """Parts in their order, what a part is made of behind it, and the sum."""
    lines = table({"engine": 0.25, "forward": 0.75, "forward/linear": 0.5}, passes=10)
    assert [line.split()[0] for line in lines] == ["part", "forward", "linear", "engine", "all"]
    assert lines[1].split()[1:] == ["0.750", "75.000", "75.0%"]
    assert lines[-1].split()[1:] == ["1.000", "100.000", "100.0%"]
