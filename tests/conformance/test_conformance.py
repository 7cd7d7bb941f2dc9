"""Every setting of the golden data through the public API: the samplers against their references."""

from pathlib import Path

import pytest

from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.case import Setting
from dllm_plugins.conformance.check import CaseModels
from dllm_plugins.conformance.check import check_logits
from dllm_plugins.conformance.check import check_setting
from dllm_plugins.conformance.check import first_load
from dllm_plugins.conformance.plays import PLAYS

from ..golden.cases import case_folders

CASES = {folder.name: Case(folder) for folder in case_folders()}
SETTINGS = [
    pytest.param(case, setting, id=f"{case.name}-{setting.name}")
    for case in CASES.values()
    for setting in case.settings
]
#: What we do about the defects that the golden data records.
QUIRKS = {
    "prompt_contains_mask": "REFUSED",
    "last_candidate": "CORRECTED",
    "prompt_length_equals_block": "CORRECTED",
}


@pytest.fixture(scope="module")
def models() -> dict[str, CaseModels]:
    """Loaded once per case."""
    return {name: CaseModels(case) for name, case in CASES.items()}


@pytest.mark.parametrize(("case", "setting"), SETTINGS)
def test_every_setting(models: dict[str, CaseModels], case: Case, setting: Setting) -> None:
    """Tokens, canvases and passes; settings that record a defect come out as documented."""
    result = check_setting(case, setting, models[case.name])
    assert result.verdict == QUIRKS.get(setting.quirk or "", "REPRODUCED"), result.detail


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_logits(models: dict[str, CaseModels], case: Case) -> None:
    """Through the engine's own denoiser, within 1e-4."""
    results = list(check_logits(case, models[case.name], first_load(case)))
    assert len(results) >= 3
    assert {result.verdict for result in results} == {"REPRODUCED"}, results


def test_every_reference_has_a_translation() -> None:
    """No sampler of the golden data is unknown, and none is translated in vain."""
    assert {setting.sampler for case in CASES.values() for setting in case.settings} == PLAYS.keys()


def test_a_checkpoint_is_part_of_a_case(tmp_path: Path) -> None:
    """A case without weights is a miss with a reason, not a crash."""
    source = CASES["llada_dense"].folder
    for name in ("case.json", "logits.safetensors"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    case = Case(tmp_path)
    result = check_setting(case, case.settings[0], CaseModels(case))
    assert result.verdict == "MISSED"
    assert "neither a folder here" in result.detail
