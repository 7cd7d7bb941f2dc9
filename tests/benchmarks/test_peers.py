"""The comparisons with other projects: what they measure, what they skip, what both sides load."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from peers import models
from peers import nvlabs
from peers import run
from peers import zhz
from peers.peer import Contest
from peers.peer import Decoded
from peers.peer import Peer
from peers.peer import Setup
from peers.peer import Size
from peers.peer import Skip
from peers.peer import decode
from peers.peer import prompt_ids
from peers.peer import sampled

SIZE = Size(4, 3)
CHECKOUTS = (*zhz.PEERS, *nvlabs.PEERS)


def fake(name: str = "fake", ours: tuple[int, ...] = (5, 6, 7), theirs: tuple[int, ...] = (5, 6, 7)) -> Peer:
    def build(setup: Setup) -> Contest:
        assert list(setup.folder.iterdir()) == []
        return Contest(
            ours=lambda: Decoded(ours, 2, 14),
            theirs=lambda: Decoded(theirs, 3, 21),
            weights=135,
            setting=f"{setup.size} {setup.dtype_name}",
            note="none",
        )

    return Peer(name, None, build)


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(run, "known", lambda: (*CHECKOUTS, fake()))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "SHAPE", models.Shape(512, width=24, inner=48, layers=2, heads=3, kv_heads=1))
    monkeypatch.setattr(models, "MASK", 511)
    monkeypatch.setattr(models, "SPECIAL", (models.EOS, models.PAD, models.BOS, 511))


def test_every_comparison_there_is() -> None:
    names = [peer.name for peer in run.known()]
    assert len(names) == len(set(names))
    for name in ("zhz_mdlm", "zhz_bd3lm", "zhz_fast_prefix", "zhz_fast_dual", "nvlabs_none", "nvlabs_prefix"):
        assert name in names
    for name in ("nvlabs_dual", "diffusers_llada2", "transformers_diffusion_gemma"):
        assert name in names


def test_without_checkouts_all_are_skipped(peers: None, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    found = CliRunner().invoke(run.main, ["--sizes", "p4n3,p8n3", "--threads", "1", "--json", str(path)])
    assert found.exit_code == 0
    for peer in CHECKOUTS:
        assert found.stderr.count(f"skipped {peer.name}: no checkout; git clone https://github.com/") == 1
        assert f"--{peer.checkout} PATH" in found.stderr
    assert [row["name"] for row in json.loads(path.read_text())] == ["fake/p4n3", "fake/p8n3"]


def test_nothing_to_compare_leaves_no_old_rows(peers: None, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('["old"]')
    assert CliRunner().invoke(run.main, ["--only", "zhz_mdlm", "--threads", "1", "--json", str(path)]).exit_code == 0
    assert json.loads(path.read_text()) == []


@pytest.mark.parametrize("peer", CHECKOUTS, ids=lambda peer: peer.name)
def test_a_folder_that_is_no_checkout(peer: Peer, tmp_path: Path) -> None:
    with pytest.raises(Skip, match="does not exist; give the top folder of a checkout of"):
        run.compared(peer, Size(4, 32), torch.float32, tmp_path, rounds=1)


def test_part_of_a_block_is_not_for_everybody(tmp_path: Path) -> None:
    with pytest.raises(Skip, match="33 new tokens are not whole blocks of 32"):
        run.compared(nvlabs.PEERS[0], Size(4, 33), torch.float32, tmp_path, rounds=1)


def test_passes_are_the_same_in_every_block() -> None:
    assert [(size.blocks, size.steps) for size in (Size(1, 32), Size(1, 33), Size(1, 128))] == [
        (1, 16),
        (2, 32),
        (4, 64),
    ]


def test_rows_all_told(peers: None, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    arguments = ["--only", "fake", "--sizes", "p4n3,p8n3", "--dtype", "float32", "--threads", "1", "--json", str(path)]
    found = CliRunner().invoke(run.main, arguments)
    assert found.exit_code == 0, found.output
    first, second = json.loads(path.read_text())
    assert second["name"] == "fake/p8n3"
    timed = ("ours", "theirs", "ratio", "ratio_per_pass")
    assert all(first[name] >= 0 for name in timed)
    assert {name: first[name] for name in first if name not in timed} == {
        "name": "fake/p4n3",
        "unit": "s",
        "passes": 2,
        "their_passes": 3,
        "rows": 14,
        "their_rows": 21,
        "tokens_per_forward": 1.5,
        "their_tokens_per_forward": 1.0,
        "exactness": "same tokens",
        "distinct_tokens": 3,
        "dtype": "float32",
        "threads": 1,
        "prompt": 4,
        "new_tokens": 3,
        "weights": 135,
        "setting": "p4n3 float32",
        "note": "none",
    }


@pytest.mark.parametrize(
    ("theirs", "dtype", "words"),
    [
        ((5, 6, 7), torch.float32, "same tokens"),
        ((5, 9, 7), torch.float32, "first differ at new token 1; 2 of 3 equal (see the row's note)"),
        (
            (5, 6, 9),
            torch.bfloat16,
            "first differ at new token 2; 2 of 3 equal (bfloat16 rounds sums of another order)",
        ),
        ((5, 6), torch.float32, "same up to length: ours 3 tokens, theirs 2"),
    ],
)
def test_exactness(theirs: tuple[int, ...], dtype: torch.dtype, words: str) -> None:
    assert run.exactness(Decoded((5, 6, 7), 1, 1), Decoded(theirs, 1, 1), dtype).startswith(words)


def test_what_differs_in_bfloat16_is_decoded_in_float32() -> None:
    def build(setup: Setup) -> Contest:
        theirs = (5, 6, 7) if setup.dtype == torch.float32 else (5, 6, 8)
        return replace(fake().build(setup), theirs=lambda: Decoded(theirs, 2, 14))

    row = run.compared(Peer("fake", None, build), SIZE, torch.bfloat16, None, rounds=1)
    assert row.exactness.startswith("first differ at new token 2; 2 of 3 equal (bfloat16")
    assert row.exactness.endswith("; in float32: same tokens")
    assert row.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "nobody"], "'nobody' is not one of zhz_mdlm"),
        (["--sizes", "256x128"], "size '256x128' is not of the form p256n128"),
        (["--sizes", "p0n1"], "size 'p0n1' is not of the form p256n128"),
        (["--only", "fake", "--zhz", "somewhere"], "somewhere is of no use to the chosen comparisons"),
    ],
)
def test_bad_options(peers: None, arguments: list[str], words: str) -> None:
    found = CliRunner().invoke(run.main, arguments)
    assert found.exit_code == 2
    assert words in " ".join(found.output.replace("│", " ").split())


def test_their_forwards_are_counted() -> None:
    class Model(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return input_ids

    model = Model()

    def sample() -> torch.Tensor:
        model(torch.zeros(1, 7, dtype=torch.long))
        return torch.as_tensor(model(input_ids=torch.tensor([[1, 2, 3, 4]])))

    call = sampled(model, sample, prompt=3)
    assert call() == call() == Decoded((4,), 2, 11)


@pytest.mark.parametrize(("layout", "mode"), [("llada", "fast_dllm"), ("qwen3", "mdlm"), ("qwen3", "bd3lm")])
def test_checkpoints_are_decoded(small: None, layout: str, mode: str, tmp_path: Path) -> None:
    """No special id ever comes out, and not the same word for ever."""
    folder = {"llada": models.llada_folder, "qwen3": models.qwen3_folder}[layout](tmp_path)
    preset = None if layout == "llada" else mode
    mask = None if preset is None else models.MASK
    model = load_model(str(folder), backend="kernels", dtype="float32", device="cpu", preset=preset, mask_id=mask)
    config = SamplingConfig(mode=mode, max_new_tokens=32, block_length=16)
    found = decode(model, prompt_ids(16, models.MASK), config, frozenset())
    assert len(found.tokens) == 32
    assert not set(models.SPECIAL) & set(found.tokens)
    assert len(set(found.tokens)) > 4
    assert found.rows >= found.passes > 1


def test_prompts_hold_no_special_id() -> None:
    drawn = prompt_ids(1000, models.MASK)
    assert not set(models.SPECIAL) & set(drawn)
    assert drawn == prompt_ids(1000, models.MASK) != prompt_ids(1000, models.MASK, seed=1)
