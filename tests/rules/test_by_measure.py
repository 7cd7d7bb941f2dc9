"""Rules by entropy, margin and position, against their papers' definitions."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dllm_plugins.errors import OptionError
from dllm_plugins.rules import EntropyBoundRule
from dllm_plugins.rules import MarginRule
from dllm_plugins.rules import PositionAwareRule
from dllm_plugins.rules.base import check_parameters
from dllm_plugins.rules.corpus import frequencies
from dllm_plugins.rules.corpus import surprise
from tests.rules.views import chosen
from tests.rules.views import config
from tests.rules.views import view

FLAT = [[0.5] * 5]
ENTROPY = [[0.3, 0.05, 0.04, 1.0, 0.06]]


def test_entropy_bound_is_the_largest_set_within_gamma() -> None:
    """By hand: 0.04 + 0.05 + 0.06 - 0.06 <= 0.1 < 0.04 + 0.05 + 0.06 + 0.3 - 0.3."""
    rule, seen = EntropyBoundRule(), view(FLAT, entropy=ENTROPY)
    assert chosen(rule, seen) == [[1, 2, 4]]
    assert chosen(rule, seen, own={"gamma": 0.089}) == [[1, 2]]
    assert chosen(rule, seen, own={"gamma": 0.039}) == [[2]]
    assert chosen(rule, seen, own={"gamma": 0.0}) == [[2]]
    assert chosen(rule, seen, own={"gamma": 0.1501}) == [[0, 1, 2, 4]]
    assert chosen(rule, seen, own={"gamma": 99.0}) == [[0, 1, 2, 3, 4]]
    assert chosen(rule, view(FLAT, entropy=[[0.0, 0.0, 2.0, 3.0, 0.0]]), own={"gamma": 0.0}) == [[0, 1, 2, 4]]
    assert chosen(rule, view(FLAT, closed=(2,), entropy=ENTROPY)) == [[1, 4]]


@pytest.mark.parametrize("seed", range(20))
def test_entropy_bound_against_the_definition(seed: int) -> None:
    """For any order: the longest prefix whose sum less its largest entropy is within gamma."""
    generator = torch.Generator().manual_seed(seed)
    entropy, probability = torch.rand(1, 8, generator=generator), torch.rand(1, 8, generator=generator)
    seen = view(probability.tolist(), entropy=entropy)
    for order, key in (("entropy", entropy[0]), ("probability", -probability[0])):
        for gamma in (0.0, 0.2, 0.7, 1.5):
            ranked = sorted(range(8), key=lambda position, key=key: float(key[position]))  # type: ignore[misc]
            values = [float(entropy[0, position]) for position in ranked]
            longest = max(k for k in range(1, 9) if sum(values[:k]) - max(values[:k]) <= gamma + 1e-9)
            own = {"gamma": gamma + 1e-9, "order": order}
            assert chosen(EntropyBoundRule(), seen, own=own) == [sorted(ranked[:longest])]


def test_entropy_bound_counts_what_the_pass_committed_before() -> None:
    """In the same pass: what it committed is part of the sum; a token of unknown entropy may be the largest."""
    rule = EntropyBoundRule()
    assert chosen(rule, view(FLAT, meanwhile=(2,), entropy=ENTROPY)) == [[1, 4]]
    assert chosen(rule, view(FLAT, meanwhile=(3,), entropy=ENTROPY)) == [[1, 2]]
    assert chosen(rule, view(FLAT, committed_now=1, entropy=ENTROPY)) == [[1, 2]]
    assert chosen(rule, view(FLAT, committed_now=1, entropy=ENTROPY), own={"gamma": 0.0}) == [[]]


def test_a_token_to_be_drawn_again_waits() -> None:
    """Probability 0 is the engine's word for it; one is committed only if the pass has nothing else."""
    seen = [[0.5, 0.5, 0.0, 0.5, 0.5]]
    assert chosen(EntropyBoundRule(), view(seen, entropy=ENTROPY)) == [[1, 4]]
    assert chosen(EntropyBoundRule(), view([[0.0] * 5], closed=(0,), entropy=ENTROPY)) == [[1]]
    assert chosen(MarginRule(), view(seen, margin=[[0.1, 0.2, 0.9, 0.1, 0.1]])) == [[1]]


def test_margin_takes_the_largest_leads() -> None:
    """The quota of the pass by p1 - p2, whatever p1 is; all above a threshold beside it."""
    rule = MarginRule()
    probability, margin = [[0.6, 0.5, 0.4, 0.3]], [[0.2, 0.45, 0.1, 0.3]]
    seen = view(probability, margin=margin)
    assert chosen(rule, seen) == [[1]]
    assert chosen(rule, seen, steps=2) == [[1, 3]]
    assert chosen(rule, seen, threshold=0.15) == [[0, 1, 3]]
    assert chosen(rule, seen, threshold=0.9) == [[1]]
    assert chosen(rule, seen, threshold=0.4, steps=2) == [[1, 3]]
    assert chosen(rule, view(probability, margin=margin, committed_now=1)) == [[]]
    assert chosen(rule, view(probability, margin=margin, committed_now=1), steps=2) == [[1]]


def pc_score(position: int, probability: float, frequency: float, decay: float, clip: float) -> float:
    """The paper's equation."""
    return math.exp(-decay * position) * min(-probability * math.log(frequency), clip)


def test_position_aware_scores_as_the_paper(tmp_path: Path) -> None:
    """All orders by exp(-lambda i) * min(-p log f, alpha)."""
    frequency = (0.9, 0.05, 0.04, 0.01)
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        probability = torch.rand(1, 6, generator=generator)
        token = torch.randint(4, (1, 6), generator=generator)
        for decay, clip in ((0.0, 10.0), (0.25, 10.0), (1.0, 0.5)):
            scores = [
                pc_score(position, float(p), frequency[int(t)], decay, clip)
                for position, (p, t) in enumerate(zip(probability[0], token[0], strict=True))
            ]
            best = sorted(sorted(range(6), key=lambda position, scores=scores: -scores[position])[:3])  # type: ignore[misc]
            own = {"decay": decay, "clip": clip, "corpus": frequency}
            assert chosen(PositionAwareRule(), view(probability.tolist(), token=token), steps=2, own=own) == [best]


def test_position_aware_without_a_corpus_is_probability_by_position() -> None:
    """And far from the prompt it is the same: only differences of places count."""
    rule = PositionAwareRule()
    for first in (0, 5000):
        seen = view([[0.3, 0.35, 0.9, 0.9]], token=[[1, 1, 1, 1]], first=first)
        assert chosen(rule, seen, own={"decay": 0.0}) == [[2]]
        assert chosen(rule, seen, own={"decay": 0.5}) == [[2]]
        assert chosen(rule, seen, own={"decay": 1.0}) == [[0]]
        assert chosen(rule, seen, own={"decay": 1.0}, steps=2) == [[0, 1]]
        assert chosen(rule, view([[0.0, 0.0]], closed=(0,), token=[[1, 1]], first=first)) == [[1]]


def test_corpora_are_read_alike(tmp_path: Path) -> None:
    """Counts or frequencies, by list or file; what a list leaves out is rare."""
    counts = [6.0, 3.0, 1.0]
    (tmp_path / "list.json").write_text(json.dumps(counts))
    (tmp_path / "ids.json").write_text(json.dumps({"0": 6, "1": 3, "2": 1}))
    (tmp_path / "theirs.json").write_text(json.dumps({"num_token": 10, "p_baseline_dict": {"0": 6, "1": 3}}))
    np.save(tmp_path / "array.npy", np.array(counts))
    np.savez(tmp_path / "arrays.npz", counts=np.array(counts, dtype=np.int64))
    save_file({"counts": torch.tensor(counts)}, tmp_path / "tensor.safetensors")
    expected = [0.6, 0.3, 0.1]
    for path in tmp_path.iterdir():
        table = frequencies(str(path))
        assert table.tolist() == pytest.approx(expected[: len(table)])
    assert frequencies((60.0, 30.0, 10.0)).tolist() == pytest.approx(expected)
    found = surprise(frequencies((6.0, 3.0, 1.0)), torch.tensor([0, 2, 9]))
    assert found.tolist() == pytest.approx([-math.log(0.6), -math.log(0.1), -math.log(1e-9)])
    assert all(first < second for first, second in pairwise(found.tolist()))


@pytest.mark.parametrize(
    ("rule", "own", "words"),
    [
        (EntropyBoundRule(), {"gamma": -1}, "gamma"),
        (EntropyBoundRule(), {"order": "size"}, "order"),
        (EntropyBoundRule(), {"delta": 1}, "it takes: gamma, order"),
        (MarginRule(), {"lead": 0.5}, "it takes: none"),
        (PositionAwareRule(), {"clip": 5.0}, "no effect without corpus"),
        (PositionAwareRule(), {"corpus": "/no/such/file.json"}, "cannot read /no/such/file.json: .*No such file"),
        (PositionAwareRule(), {"corpus": [0.0, 0.0]}, "not all of them 0"),
        (PositionAwareRule(), {"corpus": [-1.0, 2.0]}, "at least 0"),
    ],
)
def test_bad_parameters_are_refused(rule: Any, own: dict[str, Any], words: str) -> None:
    """When the request is admitted, with the value and what there is."""
    with pytest.raises(OptionError, match=words):
        check_parameters(rule, config(own=own))


def test_a_damaged_corpus_is_refused(tmp_path: Path) -> None:
    """With its name."""
    for name, text in (
        ("a.json", "{"),
        ("b.json", "{}"),
        ("c.json", '{"x": 1}'),
        ("d.npy", "no array"),
        ("e.txt", ""),
        ("f.npz", "PK\x03\x04"),
        ("g.safetensors", "12345678901"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(OptionError, match=f"{name}.*give a file of token frequencies"):
            check_parameters(PositionAwareRule(), config(own={"corpus": str(tmp_path / name)}))
