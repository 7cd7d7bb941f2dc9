"""Jobs of a tiny model: their input, and what they write when nothing happens to them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dllm_plugins import SamplingConfig
from dllm_plugins.jobs import JobOptions
from dllm_plugins.jobs import run_job

Load = dict[str, str]
#: A job with random numbers, of rows that ask for several answers, fail, or are the same row twice.
ROWS: list[Any] = [
    {
        "custom_id": "chat",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "dllm",
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 9,
            "temperature": 0.9,
            "n": 2,
        },
    },
    "a plain prompt",
    {"custom_id": "text", "method": "POST", "url": "/v1/completions", "body": {"prompt": "ab", "max_tokens": 5}},
    {"prompt": "with options", "temperature": 1.0, "seed": 7, "max_tokens": 12},
    {"custom_id": "text", "method": "POST", "url": "/v1/completions", "body": {"prompt": "ab", "max_tokens": 5}},
    {"custom_id": "lost", "method": "POST", "url": "/v1/embeddings", "body": {}},
    {"prompt": "sampled", "temperature": 1.0},
    {"prompt": "sampled", "temperature": 1.0},
    "the end",
]


@pytest.fixture(scope="session")
def load(tiny_folder: Path) -> Load:
    """How the tiny model is loaded."""
    denoiser = tiny_folder.parent / "denoiser.safetensors"
    return {"base": str(tiny_folder), "denoiser": str(denoiser), "dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="session")
def options(load: Load) -> JobOptions:
    """What all jobs here are told."""
    return JobOptions(load=load, config=SamplingConfig(max_new_tokens=7, draft_length=2))


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See ROWS."""
    path = tmp_path_factory.mktemp("jobs") / "in.jsonl"
    path.write_text("\n".join([*map(json.dumps, ROWS[:3]), "", '{"custom_id": "broken', *map(json.dumps, ROWS[3:])]))
    return path


@pytest.fixture(scope="session")
def expected(source: Path, options: JobOptions) -> bytes:
    """What the job writes."""
    target = source.with_name("expected.jsonl")
    report = run_job(source, target, options)
    assert (report.rows, report.failed) == (10, 3)
    assert [path.name for path in sorted(target.parent.iterdir())] == ["expected.jsonl", "in.jsonl"]
    return target.read_bytes()


@pytest.fixture
def run(options: JobOptions, tmp_path: Path) -> Callable[..., list[Any]]:
    """Run a job of some lines; its output."""

    def call(*lines: str, name: str = "in.jsonl", **others: Any) -> list[Any]:
        (tmp_path / name).write_text("\n".join(lines))
        run_job(tmp_path / name, tmp_path / "out.jsonl", options, **others)
        return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]

    return call
