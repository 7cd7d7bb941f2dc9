"""The conformance command: verdicts that can fail, what it writes, how it ends."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file
from safetensors.torch import save_file

from dllm_plugins.conformance import __main__ as command
from dllm_plugins.conformance.__main__ import main
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.compare import Result

from ..golden.cases import CLONED


def call(*arguments: str) -> Any:
    """The command, in this process."""
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A copy of one case, to be spoilt."""
    return Path(shutil.copytree(CLONED["llada_dense"], tmp_path / "case"))


def spoil(case: Path, change: Any) -> None:
    """Apply `change` to the first setting."""
    position = case / "case.json"
    about = json.loads(position.read_text())
    about["settings"] = about["settings"][:1]
    change(about["settings"][0])
    position.write_text(json.dumps(about))


def test_all_reproduce() -> None:
    """Folders of cases, with one line per check."""
    result = call(*(str(CLONED[name]) for name in ("llada_dense", "sdar", "stable_diffcoder")))
    assert result.exit_code == 0, result.output
    assert "0 missed" in result.output
    assert "quirk_prompt_contains_mask" in result.output
    assert "REFUSED" in result.output


def test_without_folders_it_runs_all_of_this_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every case; what comes out of each is in test_conformance.py."""
    seen: list[str] = []

    def note(case: Case, backend: str) -> list[Result]:
        seen.append(case.name)
        return [Result(case.name, "all", "REPRODUCED", backend)]

    monkeypatch.setattr(command, "check", note)
    result = call()
    assert result.exit_code == 0, result.output
    assert seen == sorted(CLONED)
    assert f"{len(CLONED)} checks in {len(CLONED)} cases, 0 missed" in result.output


def test_without_a_clone_it_needs_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As from a wheel."""
    monkeypatch.setattr(command, "OWN", tmp_path / "golden")
    result = call()
    assert result.exit_code == 2
    assert "give their FOLDER" in result.output


def wrong_token(setting: dict[str, Any]) -> None:
    """Another last token."""
    setting["output"][0][-1] ^= 1


def wrong_canvas(setting: dict[str, Any]) -> None:
    """Another canvas half way."""
    setting["canvases"][5][0][7] ^= 1


def wrong_passes(setting: dict[str, Any]) -> None:
    """Fewer passes than there are changes."""
    setting["forwards"] -= 1


def unknown_sampler(setting: dict[str, Any]) -> None:
    """Nobody's."""
    setting["sampler"] = "nobody's"


@pytest.mark.parametrize("change", [wrong_token, wrong_canvas, wrong_passes, unknown_sampler])
def test_a_miss_is_seen(case: Path, change: Any) -> None:
    """Exit code 1, and the setting is named."""
    spoil(case, change)
    result = call(str(case))
    assert result.exit_code == 1
    assert "1 missed" in result.output


def test_a_defect_may_differ(case: Path) -> None:
    """The same difference in a setting that records a defect is a correction."""

    def change(setting: dict[str, Any]) -> None:
        wrong_token(setting)
        setting["quirk"] = "made up"

    spoil(case, change)
    result = call(str(case))
    assert result.exit_code == 0
    assert "CORRECTED" in result.output


def test_wrong_logits_are_seen(case: Path) -> None:
    """A difference of 2e-4 is one."""
    tensors = load_file(case / "logits.safetensors")
    tensors["clean.logits"][0, 3, 5] += 2e-4
    save_file(tensors, case / "logits.safetensors")
    spoil(case, lambda setting: None)
    result = call(str(case))
    assert result.exit_code == 1
    assert "1 missed" in result.output


def test_produce_reads_no_expected_values(case: Path, tmp_path: Path) -> None:
    """What we write is the same when everything expected is gone, and it is what was recorded."""
    recorded = json.loads((case / "case.json").read_text())["settings"][0]

    def forget(setting: dict[str, Any]) -> None:
        for name in ("output", "canvases", "forwards", "margins", "min_margin", "forward_query_lengths"):
            setting.pop(name)

    spoil(case, forget)
    tensors = load_file(case / "logits.safetensors")
    expected = tensors["clean.logits"].clone()
    for name in [name for name in tensors if name.endswith(".logits")]:
        tensors[name] = tensors[name] * 0
    save_file(tensors, case / "logits.safetensors")
    result = call(str(case), "--produce", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    made = json.loads((tmp_path / "out" / "case" / "case.json").read_text())["settings"][0]
    assert made["output"] == recorded["output"]
    assert made["canvases"] == recorded["canvases"]
    assert made["forwards"] == recorded["forwards"]
    found = load_file(tmp_path / "out" / "case" / "logits.safetensors")["clean.logits"]
    assert float((found - expected).abs().max()) <= 1e-4


def test_what_is_no_case(tmp_path: Path) -> None:
    """A folder without cases, and one whose case.json is damaged."""
    assert "no case.json" in call(str(tmp_path)).output
    (tmp_path / "case.json").write_text("{")
    result = call(str(tmp_path))
    assert result.exit_code == 1
    assert "cannot read" in result.output
