"""DreamOn's hole: how it grows and shrinks, and what is left of it."""

import json
from pathlib import Path

import pytest

from dllm_plugins import Request
from dllm_plugins import load_model
from dllm_plugins.errors import CheckpointError

from .shifted import EOS
from .shifted import EXPAND
from .shifted import MASK
from .shifted import generate
from .shifted import load
from .shifted import prefer
from .shifted import request
from .shifted import write


def test_dreamon_grows_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that always expands is stopped by max_new_tokens, or by the budget."""
    model = load("dreamon")
    prefer(monkeypatch, model, EXPAND)
    for own, length in ({"min_gen_len": 3}, 9), ({"min_gen_len": 3, "expand_budget": 2}, 5):
        finish = generate(model, request("dreamon", [5, 6], (7, EOS), max_new_tokens=9, own=own))[0]
        assert len(finish.tokens) == length
        assert EXPAND not in finish.tokens
        assert finish.rest == (7, EOS)
        assert finish.usage.total_passes == length + length - 3


def test_dreamon_shrinks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that always ends leaves an empty hole in one pass, in several, or ends of text."""
    model = load("dreamon")
    prefer(monkeypatch, model, EOS)
    finish = generate(model, request("dreamon", [5, 6], (7,), max_new_tokens=9, own={"min_gen_len": 5}))[0]
    assert (finish.tokens, finish.rest, finish.reason) == ((), (7,), "eos")
    switches = {"min_gen_len": 5, "pad_eos_to_right": False}
    finish = generate(model, request("dreamon", [5, 6], (7,), max_new_tokens=9, own=switches))[0]
    assert (finish.tokens, finish.usage.total_passes) == ((), 5)
    switches = {"min_gen_len": 5, "delete_eos_token": False}
    finish = generate(model, request("dreamon", [5, 6], (7,), max_new_tokens=9, own=switches))[0]
    assert finish.tokens == (EOS,) * 5


def test_dreamon_out_of_steps() -> None:
    """The answer ends at the first position that is still open."""
    model = load("dreamon")
    finish = generate(model, request("dreamon", [5, 6], (7,), max_new_tokens=9, steps=3, own={"min_gen_len": 8}))[0]
    assert finish.usage.total_passes == 3
    assert MASK not in finish.tokens
    assert None in finish.rest


def test_dreamon_logits_follow_their_tokens() -> None:
    """Wherever expansions and deletions moved them."""
    model = load("dreamon")
    asked = request("dreamon", [5, 6], (7, EOS), max_new_tokens=12, own={"min_gen_len": 6})
    finish = generate(model, Request(asked.tokens, asked.config, frozenset(), logits=True, suffix=asked.suffix))[0]
    assert finish.logits is not None
    assert [int(logits.argmax()) for logits in finish.logits if logits is not None] == list(finish.tokens)
    assert finish.tokens


def test_what_tells_the_sampler(tmp_path: Path) -> None:
    """A hub id, config.json or a token of its own; never what a folder here is called."""
    hub = tmp_path / "models--Dream-org--DreamOn-v0-7B" / "snapshots" / "0a1b2c"
    positions = {"DreamOn-v0-7B": "dream", "checkpoint": "dream"}
    for name, sampler in positions.items():
        write("dream", tmp_path / name)
        assert chosen(tmp_path / name) == sampler
    hub.parent.mkdir(parents=True)
    write("dream", hub)
    assert chosen(hub) == "dreamon"
    (tmp_path / "checkpoint" / "added_tokens.json").write_text('{"<|expand|>": 151667}')
    assert chosen(tmp_path / "checkpoint") == "dreamon"
    config = tmp_path / "DreamOn-v0-7B" / "config.json"
    said = json.loads(config.read_text())
    config.write_text(json.dumps({**said, "dllm_preset": "dreamon"}))
    assert chosen(tmp_path / "DreamOn-v0-7B") == "dreamon"
    config.write_text(json.dumps({**said, "dllm_preset": "sdar"}))
    with pytest.raises(CheckpointError, match=r"dllm_preset='sdar'; presets of dream: dream, dreamon"):
        chosen(tmp_path / "DreamOn-v0-7B")


def chosen(position: Path) -> str:
    """The sampler behind mode `diffusion`."""
    return load_model(str(position), dtype="float32", device="cpu").denoiser.spec.samplers["diffusion"]
