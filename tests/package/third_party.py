"""A plug-in that uses every hook, with what docs/plugins.md defines."""

import io
import re
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dllm_plugins import Model
from dllm_plugins import SamplingConfig
from dllm_plugins import hookimpl
from dllm_plugins import load_model
from dllm_plugins import plugins
from dllm_plugins.denoisers import Denoiser
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import PluginError
from dllm_plugins.families.layout import Layout
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.models import Adapter
from dllm_plugins.models import Backend
from dllm_plugins.models import Chosen
from dllm_plugins.models import Preset
from dllm_plugins.modes import diffusion
from dllm_plugins.modes.base import Sampler
from dllm_plugins.processes.base import NoiseProcess
from dllm_plugins.rules import CanvasView
from dllm_plugins.rules import CommitRule
from dllm_plugins.rules import RevocationRule
from dllm_plugins.rules import RuleSettings


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


#: The process that modes of these tests are handed, and how often it was asked.
NOISED: list[int] = []


@dataclass(frozen=True)
class CountedProcess:
    """Masks, counted."""

    name: str = "masked-too"

    def noised(self, count: int, spec: ModelSpec, *_noise: Any) -> tuple[int, ...]:
        NOISED.append(count)
        return (spec.mask_id,) * count


def build_abacus(*parts: Any, **options: Any) -> Denoiser:
    """Computes as torch does."""
    made: Denoiser = plugins.backends()["torch"].build(*parts, **options)
    made.spec = replace(made.spec, numerics="approximate")
    return made


@cache
def page_names() -> dict[str, Any]:
    """What the blocks of docs/plugins.md define."""
    names: dict[str, Any] = {}
    text = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        with redirect_stdout(io.StringIO()):
            exec(block, names)
    return names


#: The folder that preset `tiny` loads.
TINY: list[Path] = []


class ThirdParty:
    """A plug-in that uses every hook."""

    @hookimpl
    def register_families(self) -> list[Layout]:
        page: list[Layout] = page_names()["register_families"]()
        return page

    @hookimpl
    def register_processes(self) -> list[NoiseProcess]:
        return [CountedProcess()]

    @hookimpl
    def register_rules(self) -> list[CommitRule]:
        return [LeftmostRule(), *page_names()["register_rules"]()]

    @hookimpl
    def register_revocations(self) -> list[RevocationRule]:
        return [NewestRule()]

    @hookimpl
    def register_modes(
        self,
        rules: Mapping[str, CommitRule],
        revocations: Mapping[str, RevocationRule],
        processes: Mapping[str, NoiseProcess],
    ) -> list[Sampler]:
        assert "leftmost" in rules
        assert "newest" in revocations
        assert "masked-too" in processes
        own = diffusion.sampler(rules, processes["masked-too"])
        return [replace(own, name="diffusion-too", attention=frozenset({"bidirectional"}), shifted=frozenset())]

    @hookimpl
    def register_denoisers(self) -> list[Backend]:
        return [Backend("abacus", "by hand", build_abacus)]

    @hookimpl
    def register_models(self) -> list[Preset]:
        def load(options: LoadOptions) -> Model:
            raise PluginError("the toy model was asked for")

        return [
            Preset("toy", "a toy", load),
            Preset("tiny", "a tiny model", lambda options: load_model("dllm", base=TINY[0], denoiser=options.denoiser)),
            Preset("picky", "a toy", load, lambda options: Chosen(options.dtype, "so")),
        ]

    @hookimpl
    def register_adapters(self) -> list[Adapter]:
        return [Adapter("toy", "toy_adapter", "a toy host")]
