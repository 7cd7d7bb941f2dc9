"""Dream, DreamOn, Open-dCoder and RND1 beyond the golden data: batches, draws, holes, caches, refusals."""

from typing import Any

import pytest

from dllm_plugins import Request
from dllm_plugins.errors import OptionError

from .shifted import MASK
from .shifted import SAMPLERS
from .shifted import canvases
from .shifted import generate
from .shifted import load
from .shifted import prefer
from .shifted import request


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_batches_equal_rows_alone(name: str, temperature: float) -> None:
    """Unequal prompts, lengths and seeds, bit for bit; answers have their exact length but for DreamOn's."""
    model = load(SAMPLERS[name][0])
    requests = [
        request(
            name, [5 + row] * (2 + 3 * row), (7,) * row, max_new_tokens=6 + row, temperature=temperature, seed=row // 2
        )
        for row in range(4)
    ]
    alone = [generate(model, asked)[0] for asked in requests]
    together = generate(model, *requests)
    assert [finish.tokens for finish in together] == [finish.tokens for finish in alone]
    assert [finish.rest for finish in together] == [finish.rest for finish in alone]
    assert all(MASK not in finish.tokens for finish in alone)
    lengths = [len(finish.tokens) for finish in alone]
    assert max(lengths) <= 9
    assert name == "dreamon" or lengths == [6, 7, 8, 9]


@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_follow_the_seed(name: str) -> None:
    """Sampling repeats with its seed and differs with another."""
    model = load(SAMPLERS[name][0])
    first, again, other = (
        generate(model, request(name, [5, 6, 7], max_new_tokens=12, temperature=1.2, seed=seed))[0].tokens
        for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_mask_is_never_drawn(monkeypatch: pytest.MonkeyPatch, name: str, temperature: float) -> None:
    """Not even by a model that is sure of it, with what is left of the distribution."""
    model = load(SAMPLERS[name][0])
    prefer(monkeypatch, model, MASK)
    options: dict[str, Any] = {} if name == "dream origin" and not temperature else {"top_k": 3, "top_p": 0.5}
    asked = request(name, [5, 6], max_new_tokens=8, temperature=temperature, seed=3, **options)
    tokens = generate(model, asked)[0].tokens
    assert MASK not in tokens
    assert name == "dreamon" or len(tokens) == 8
    assert set(tokens) != {0}


def test_stop_ids_end_the_work_early() -> None:
    """Where committed tokens stay, the answer ends with its first end of text."""
    model = load("dream")
    whole = generate(model, request("dream", [5, 6, 7], max_new_tokens=20))[0]
    asked = request("dream", [5, 6, 7], max_new_tokens=20)
    stop = whole.tokens[4]
    cut = generate(model, Request(asked.tokens, asked.config, stop_ids=frozenset({stop})))[0]
    assert cut.tokens == whole.tokens[: whole.tokens.index(stop)]
    assert cut.reason == "eos"
    assert cut.usage.total_passes <= whole.usage.total_passes


def test_one_pass_per_token_unless_told() -> None:
    """`steps` counts the passes; the default is one per open position, holes included."""
    model = load("dream")
    asked = request("dream", [5, MASK, MASK, 6], max_new_tokens=8)
    assert generate(model, asked)[0].usage.total_passes == 10
    for name in ("dream", "p2", "rnd1"):
        asked = request(name, [5, 6], max_new_tokens=9, steps=4)
        assert generate(load(SAMPLERS[name][0]), asked)[0].usage.total_passes == 4


@pytest.mark.parametrize("name", ["dream", "p2", "open_dcoder"])
def test_holes_in_the_prompt_are_filled(name: str) -> None:
    """What was given stays, in every pass."""
    model = load(SAMPLERS[name][0])
    found = canvases(model, request(name, [5, MASK, 6, MASK, 7], (8, 9), max_new_tokens=4, seed=1))
    assert all((canvas[1], canvas[3]) == (6, 7) for canvas in found)
    assert found[-1][-2:] == [8, 9]
    assert None not in found[-1]
    assert MASK not in found[-1]
    assert len(found[-1]) == 10


@pytest.mark.parametrize("name", ["dream", "p2", "rnd1", "dreamon"])
def test_truncation_changes_the_order_of_greedy_decoding(name: str) -> None:
    """top_k acts on confidences at temperature 0."""
    model = load(SAMPLERS[name][0])
    own = {"min_gen_len": 10} if name == "dreamon" else {}
    choices: tuple[dict[str, Any], ...] = ({}, {"top_k": 2}, {"top_k": 64})
    plain, narrow, wide = (
        canvases(model, request(name, [5, 6, 7], max_new_tokens=12, own=own, **options)) for options in choices
    )
    assert plain == wide != narrow


@pytest.mark.parametrize("name", ["dream", "p2", "rnd1"])
def test_approximate_caches(name: str) -> None:
    """The canvas is one block: a full pass every time is exact; keys that are kept save rows."""
    model = load(SAMPLERS[name][0])
    exact = generate(model, request(name, [5] * 20, (7, 8), max_new_tokens=10))[0]
    for cache in ("prefix", "dual"):
        options: dict[str, Any] = {"max_new_tokens": 10, "approximate_cache": cache}
        fresh = generate(model, request(name, [5] * 20, (7, 8), refresh=1, **options))[0]
        assert fresh.tokens == exact.tokens
        stale = generate(model, request(name, [5] * 20, (7, 8), **options))[0]
        assert len(stale.tokens) == 10
        assert MASK not in stale.tokens
        assert stale.usage.rows < exact.usage.rows
        assert (exact.usage.cache, stale.usage.cache) == ("none", "approximate")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dream", {"own": {"alg": "p2"}}, "alg"),
        ("dream", {"own": {"eps": 2.0}}, "eps"),
        ("dream", {"threshold": 0.5}, "threshold=0.5"),
        ("dream origin", {"own": {"alg_temp": 0.5}}, "alg_temp=0.5 has no effect"),
        ("dream origin", {"top_k": 5}, "top_k=5 has no effect at temperature 0"),
        ("dream", {"refresh": 4}, "approximate_cache"),
        ("p2", {"own": {"alg_temp": 0.5}}, "alg_temp=0.5 has no effect"),
        ("p2", {"own": {"eps": 0.1}}, "eps=0.1 has no effect"),
        ("dreamon", {"own": {"alg": "origin"}}, "alg"),
        ("dreamon", {"own": {"min_gen_len": 20}}, "min_gen_len=20 is above max_new_tokens=8"),
        ("dreamon", {"own": {"expand_token_id": 151667}}, "expand_token_id=151667"),
        ("dreamon", {"approximate_cache": "dual"}, "approximate_cache"),
        ("rnd1", {"own": {"greedy": True}}, "greedy=True has no effect at temperature 0"),
        ("rnd1", {"own": {"padding": 0, "add_eos_at_end": True}}, "padding"),
        ("rnd1", {"own": {"eos_token_id": 3}}, "eos_token_id=3 has no effect"),
        ("rnd1", {"own": {"pad_token_id": 99}}, "pad_token_id=99"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    """Before anything is decoded, by name and value."""
    engine = load(SAMPLERS[name][0]).engine()
    with pytest.raises(OptionError, match=message):
        engine.admit(request(name, [5, 6], max_new_tokens=8, **options))
