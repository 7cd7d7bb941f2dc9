"""The wheel in an environment of its own: what it holds, and the demo run from it."""

import os
import re
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dllm_plugins.default_model.base_model import is_ready
from dllm_plugins.files.cache import cache_folder

ROOT = Path(__file__).parents[2]
OURS = {"dllm_plugins", "dllm_transformers", "langchain_dllm", "llm_dllm", "dllm_kernels"}


def call(*command: str | Path, **environment: str) -> str:
    """Run a program; its output if it succeeds."""
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
        cwd=command[0].parent if isinstance(command[0], Path) else None,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_wheel_holds_our_packages_and_nothing_else(wheel: Path) -> None:
    """Weights, training text and card inside; small enough to be downloaded gladly."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == OURS
    assert "dllm_plugins/data/smollm2-135m-denoiser.safetensors" in names
    assert "dllm_plugins/data/README.md" in names
    assert all(f"{package}/py.typed" in names for package in OURS)
    unused = ("/training/", "conformance", "sudoku-4x4", "tests/", "benchmarks/", ".jsonl")
    assert [name for name in names if any(part in name for part in unused)] == []


@pytest.mark.slow
def test_sizes_are_what_the_docs_say(wheel: Path) -> None:
    """Within a twentieth: whoever makes it larger says so there."""
    archive = zipfile.ZipFile(wheel)
    denoiser = archive.getinfo("dllm_plugins/data/smollm2-135m-denoiser.safetensors").file_size
    installed = sum(item.file_size for item in archive.infolist())
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    table = text.partition("<!-- sizes -->")[2].partition("<!-- end -->")[0]
    told = [float(size) * 1e6 for size in re.findall(r"\| ([\d.]+) MB \|", table)]
    assert told == pytest.approx([wheel.stat().st_size, installed, denoiser], rel=0.05)


@pytest.mark.slow
def test_hosts_bring_nothing_that_they_do_not_use(wheel: Path) -> None:
    """What is heavy, or of use to some only, is an extra; pip is none of ours."""
    needed = required(wheel)
    some = {"accelerate", "gguf", "rich", "pip", "llama-cpp-python", "llm", "langchain-core", "matplotlib", "diffusers"}
    for extra, brought in (("", set()), ("llm", {"llm", "rich"}), ("langchain", {"langchain-core"})):
        found = {item.name for item in needed if item.marker is None or item.marker.evaluate({"extra": extra})}
        assert found & some == brought


def required(wheel: Path) -> list[Requirement]:
    """What the wheel says that it needs."""
    metadata = zipfile.ZipFile(wheel).read("dllm_plugins-0.1.0.dist-info/METADATA").decode()
    return [Requirement(text) for text in re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE)]


def brought(requirements: list[Requirement], extra: str) -> set[str]:
    """The normal names of the distributions that these bring, and theirs; of those installed here."""
    found, waiting = set[tuple[str, str]](), [(requirements, extra)]
    while waiting:
        needed, extra = waiting.pop()
        for one in needed:
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                name = canonicalize_name(one.name)
                new = {(name, more) for more in ("", *one.extras)} - found
                found |= new
                theirs = [Requirement(text) for text in distribution(name).requires or []]
                waiting += [(theirs, more) for _, more in new]
    return {name for name, _ in found}


def lend(names: set[str], to: Path) -> None:
    """Put what these distributions installed into a folder of packages, by links; nothing of any other."""
    owners = packages_distributions()
    for name in names:
        lent = distribution(name)
        for file in lent.files or []:
            top = file.parts[0]
            if top == "..":
                continue
            shared = len({canonicalize_name(owner) for owner in owners.get(top, [])}) > 1
            place = to.joinpath(*file.parts) if shared or len(file.parts) == 1 else to / top
            if not place.is_symlink():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(Path(str(lent.locate_file(place.relative_to(to)))))


@pytest.mark.slow
def test_demo_runs_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """Installed into a clean environment, with the base model that `make setup` fetched, offline.

    There is the wheel and what its metadata asks for, as `make setup` installed it: unpacking torch once more
    would prove nothing.
    """
    assert is_ready(), "the base model is not set up; run `make setup`"
    venv.create(tmp_path / "clean")
    python = tmp_path / "clean" / "bin" / "python"
    lend(
        brought(required(wheel), "llm"),
        Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()),
    )
    pip: tuple[str | Path, ...] = (sys.executable, "-m", "pip", "--python", python)
    # Only what the demo imports is compiled, when it does.
    call(*pip, "install", "-q", "--no-compile", "--no-index", f"{wheel}[llm]")
    call(*pip, "check")
    code = "import importlib.util as u; print([n for n in ('adapters', 'kernels', 'tests', 'docs') if u.find_spec(n)])"
    assert call(python, "-c", code).strip() == "[]"
    user = {"DLLM_CACHE": str(cache_folder()), "LLM_USER_PATH": str(tmp_path / "llm"), "HF_HUB_OFFLINE": "1"}
    ask = ("Why is the sky blue?", "-o", "max_tokens", "24")
    shown = call(python, "-m", "llm", "dllm", "watch", *ask, **user)
    assert "tokens/pass" in shown.splitlines()[-1]
    same = call(python, "-m", "llm", "-m", "dllm", *ask, **user)
    assert shown.startswith(same.strip())
