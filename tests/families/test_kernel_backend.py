"""`backend="kernels"`: the golden data on the block decoder, and the same protocol as transformers' own classes."""

import copy
import json
import shutil
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen2Config
from transformers import Qwen2ForCausalLM

from dllm_kernels.decoder.plain import PackedDecoder
from dllm_kernels.dispatch import KernelError
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.conformance.__main__ import main
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.check import CaseModels
from dllm_plugins.conformance.check import check
from dllm_plugins.conformance.check import first_load
from dllm_plugins.denoisers import kernel as kernel_module
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.kernel import KernelDenoiser
from dllm_plugins.denoisers.native import NativeDenoiser
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError

from ..golden.cases import CLONED
from ..golden.cases import case_folders
from ..modes.tiny_models import spec
from .loading_memory import loading_memory
from .loading_memory import needs_proc

#: The cases whose class the block decoder computes.
DENSE = (
    "a2d_qwen3",
    "dream",
    "dreamon",
    "fastdllm_factor",
    "fastdllm_v1",
    "fastdllm_v2",
    "illada",
    "llada_dense",
    "open_dcoder",
    "sdar",
    "stable_diffcoder",
    "wedlm_qwen2",
    "wedlm_qwen3",
)
CASES = {folder.name: Case(folder) for folder in case_folders() if folder.name in DENSE}
SPEC = spec("diffusion", vocabulary=40, mask_id=39, context=512, stop_ids=frozenset(), cache="none", ids={}, holds=True)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_golden_data(case: Case) -> None:
    """Logits and settings as recorded, on the block decoder."""
    models = CaseModels(case, backend="kernels")
    assert isinstance(models.get(**first_load(case)).denoiser, KernelDenoiser)
    results = list(check(case, backend="kernels"))
    quirks = {setting.name for setting in case.settings if setting.quirk}
    assert not [found for found in results if found.verdict != "REPRODUCED" and found.setting not in quirks]
    assert "MISSED" not in {found.verdict for found in results}


def test_the_command_takes_it() -> None:
    """`python -m dllm_plugins.conformance --backend kernels FOLDER`."""
    found = CliRunner().invoke(main, ["--backend", "kernels", str(CASES["stable_diffcoder"].folder)])
    assert found.exit_code == 0, found.output
    assert " 0 missed" in found.output
    found = CliRunner().invoke(main, ["--backend", "fast", str(CASES["stable_diffcoder"].folder)])
    assert found.exit_code == 1
    assert "backend='fast' cannot run" in " ".join(found.output.split())


def test_every_dense_family_has_golden_data() -> None:
    """None of them is left out because its case is not there."""
    assert CASES.keys() == set(DENSE)


@pytest.fixture
def pair() -> tuple[NativeDenoiser, KernelDenoiser]:
    """The same weights behind transformers' class and behind the block decoder."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 40}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}
    network = Qwen2ForCausalLM(Qwen2Config(**sizes, **heads)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return NativeDenoiser(copy.deepcopy(network), SPEC), KernelDenoiser(network, SPEC)


def tokens_of(length: int, seed: int) -> list[int]:
    drawn = torch.randint(0, 40, (length,), generator=torch.Generator().manual_seed(seed))
    return [int(token) for token in drawn]


def told(denoiser: Any, segments: Sequence[Segment]) -> list[Tensor]:
    """Logits of every segment."""
    return [denoiser.logits(hidden) for hidden in denoiser.forward(segments)]


def both(pair: tuple[Any, Any], segments: Sequence[Segment]) -> list[Tensor]:
    """One pass on both; they agree."""
    native, ours = (told(denoiser, segments) for denoiser in pair)
    for expected, found in zip(native, ours, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    return ours


def each(pair: tuple[Any, Any], act: Callable[[Any], Any]) -> None:
    """The same order to both."""
    for denoiser in pair:
        act(denoiser)


def whole(row: int, tokens: list[int], begin: int = 0, **fields: Any) -> Segment:
    positions = range(begin, begin + len(tokens))
    return Segment(row, tokens, positions, **{"causal": False, "wanted": range(len(tokens)), **fields})


def test_every_kind_of_segment(pair: tuple[NativeDenoiser, KernelDenoiser]) -> None:
    """Causal, groups, behind, apart, several calls of a row and several rows in one pass, on prefixes."""
    for _ in range(2):
        each(pair, lambda denoiser: denoiser.open_row())
    first, second = tokens_of(6, 1), tokens_of(3, 2)
    both(pair, [whole(1, first, causal=True), whole(2, second)])
    each(pair, lambda denoiser: denoiser.freeze(1, 4))
    each(pair, lambda denoiser: denoiser.freeze(2, 3))
    block, shadow, blind = tokens_of(5, 3), tokens_of(5, 4), tokens_of(7, 5)
    segments = [
        whole(1, block, 4, groups=[0, 0, 1, 1, 1]),
        whole(1, shadow, 4, behind=((0, 5),), apart=[0, 1, -1, 3, 4]),
        whole(1, blind, 4, causal=True),
        whole(2, tokens_of(2, 6), 3),
    ]
    both(pair, segments)
    each(pair, lambda denoiser: denoiser.freeze(1, 2))
    both(pair, [whole(1, tokens_of(3, 7), 6), whole(2, tokens_of(4, 8), 3, wanted=[1])])
    lengths = [{denoiser.close_row(row).length for row in (1, 2)} for denoiser in pair]
    assert lengths == [{6, 3}, {6, 3}]
    assert pair[1].open_rows == 0


def test_held_keys(pair: tuple[NativeDenoiser, KernelDenoiser]) -> None:
    """Held, replaced while held, frozen past held ones, frozen and held by one pass, released."""
    each(pair, lambda denoiser: denoiser.open_row())
    tokens = tokens_of(12, 1)
    both(pair, [whole(1, tokens)])
    each(pair, lambda denoiser: denoiser.hold(1, [0, 1, 2, 3, 9, 10, 11]))
    both(pair, [whole(1, tokens[4:9], 4)])
    each(pair, lambda denoiser: denoiser.hold(1, [0, 4]))
    both(pair, [whole(1, tokens[2:9], 2)])
    each(pair, lambda denoiser: denoiser.freeze(1, 5))
    both(pair, [whole(1, tokens[7:], 7)])
    each(pair, lambda denoiser: denoiser.freeze(1, 2))
    each(pair, lambda denoiser: denoiser.hold(1, [2, 4]))
    (held,) = both(pair, [whole(1, tokens[9:11], 9)])
    each(pair, lambda denoiser: denoiser.release(1))
    (alone,) = both(pair, [whole(1, tokens[9:11], 9)])
    assert not torch.allclose(held, alone, atol=1e-3)


def test_a_kept_prefix(pair: tuple[NativeDenoiser, KernelDenoiser]) -> None:
    """A new row starts from part of an ended one's prefix, and the old one stays as it was."""
    each(pair, lambda denoiser: denoiser.open_row())
    tokens = tokens_of(140, 1)
    both(pair, [whole(1, tokens)])
    each(pair, lambda denoiser: denoiser.freeze(1, 140))
    states = [denoiser.close_row(1) for denoiser in pair]
    for length in (130, 139):
        row = pair[0].open_row(states[0], length)
        assert pair[1].open_row(states[1], length) == row
        both(pair, [whole(row, tokens_of(9, length), length)])
        each(pair, lambda denoiser, row=row: denoiser.freeze(row, 9))  # type: ignore[misc]
        each(pair, lambda denoiser, row=row: denoiser.close_row(row))  # type: ignore[misc]
    assert states[1].length == 140


def test_a_batch_equals_its_rows_bit_for_bit(tmp_path: Path) -> None:
    """Promised in its spec and told in the statistics: rows of a pass do not touch one another, in bfloat16 either."""
    position = str(CASES["sdar"].folder / "checkpoint")
    model = load_model(position, backend="kernels", dtype="bfloat16", device="cpu")
    denoiser: Any = model.denoiser
    assert denoiser.spec.numerics == "row-invariant"
    rows = [denoiser.open_row() for _ in range(3)]
    passes = [whole(row, tokens_of(5 + 6 * row, row)) for row in rows]
    together = told(denoiser, passes)
    for segment, batched in zip(passes, together, strict=True):
        assert torch.equal(told(denoiser, [segment])[0], batched)
    requests = [Request(tokens_of(n, n), SamplingConfig(max_new_tokens=9), stop_ids=frozenset()) for n in (3, 8, 13)]
    finishes = model.engine().generate(requests)
    alone = [model.engine().generate([request])[0] for request in requests]
    assert [finish.tokens for finish in finishes] == [finish.tokens for finish in alone]
    assert {finish.usage.numerics for finish in finishes} == {"row-invariant"}


def test_auto_takes_it_where_it_fits() -> None:
    """Dense decoders get the block decoder, mixtures of experts transformers' own class; torch can be asked for."""
    folder = str(CASES["sdar"].folder / "checkpoint")
    model = load_model(folder, device="cpu")
    assert isinstance(model.denoiser, KernelDenoiser)
    assert model.denoiser.spec.numerics == "row-invariant"
    plain = load_model(folder, device="cpu", backend="torch")
    assert isinstance(plain.denoiser, NativeDenoiser)
    assert plain.denoiser.spec.numerics == "approximate"


def test_what_it_does_not_compute(tmp_path: Path) -> None:
    """Refused before a weight is read: mixtures of experts, device maps, unknown backends; and the default model."""
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["SDARMoeForCausalLM"], "vocab_size": 40}))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(OptionError, match="family 'sdar_moe' is a Qwen3MoeForCausalLM; leave backend out"):
        load_model(str(tmp_path), backend="kernels")
    folder = str(CASES["sdar"].folder / "checkpoint")
    with pytest.raises(OptionError, match="leave device_map='auto' out"):
        load_model(folder, backend="kernels", device_map="auto")
    with pytest.raises(OptionError, match=r"backend='fast' cannot run .*use 'auto' or 'torch' or 'kernels'"):
        load_model(folder, backend="fast")


def test_a_model_of_another_class() -> None:
    """A config the decoder does not compute is refused with its value."""
    config = Qwen2Config(hidden_size=32, intermediate_size=48, num_hidden_layers=1, vocab_size=40, hidden_act="gelu")
    with pytest.raises(CheckpointError, match=r"does not fit tiny.*hidden_act='silu', but this model has 'gelu'"):
        KernelDenoiser(Qwen2ForCausalLM(config), SPEC)


LOAD = """
from dllm_plugins import load_model

def load(place):
    global kept
    kept = load_model(place, mask_id=5, dtype="bfloat16", device="cpu", backend="kernels").denoiser
    return kept.model
"""


SMALL = CLONED["llada_dense"] / "checkpoint"


def ones(target: Path, stored: torch.dtype, width: int = 1024, layers: int = 12, vocabulary: int = 8000) -> Path:
    """A checkpoint of as many weights, 218 million if nothing is said, all ones."""
    large = Path(shutil.copytree(SMALL, target))
    config = json.loads((large / "config.json").read_text())
    config |= {"d_model": width, "n_heads": 8, "n_kv_heads": 8, "mlp_hidden_size": 4 * width, "n_layers": layers}
    (large / "config.json").write_text(json.dumps(config | {"embedding_size": vocabulary}))
    inside: dict[str, tuple[int, ...]] = {"attn_norm": (width,), "ff_norm": (width,), "ff_proj": (4 * width, width)}
    inside |= {"up_proj": (4 * width, width), "ff_out": (width, 4 * width)}
    inside |= dict.fromkeys(("q_proj", "k_proj", "v_proj", "attn_out"), (width, width))
    shapes: dict[str, tuple[int, ...]] = {"wte": (vocabulary, width), "ln_f": (width,), "ff_out": (vocabulary, width)}
    shapes |= {f"blocks.{layer}.{name}": shape for layer in range(layers) for name, shape in inside.items()}
    tensors = {f"model.transformer.{name}.weight": torch.ones(shape, dtype=stored) for name, shape in shapes.items()}
    save_file(tensors, large / "model.safetensors")
    return large


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
def test_no_second_copy_of_the_weights(tmp_path: Path, stored: torch.dtype) -> None:
    """Peak anonymous memory stays below 1.15 times the weights while they are fused, too."""
    found = loading_memory(LOAD, SMALL, ones(tmp_path / "large", stored))
    assert found["size"] > 350e6
    assert found["peak"] <= 1.15 * found["size"], found
    assert found["kept"] <= 1.05 * found["size"], found


@pytest.mark.slow
@needs_proc
def test_rounded_weights_keep_nothing_of_the_others(tmp_path: Path) -> None:
    """Blocks take 131 MB; of what each matrix had before glibc would keep 90 MB and more."""
    load = LOAD.replace('dtype="bfloat16"', 'dtype="float32", weights="Q4_0"')
    small = ones(tmp_path / "small", torch.bfloat16, width=64, layers=1, vocabulary=320)
    found = loading_memory(load, small, ones(tmp_path / "large", torch.bfloat16), fixed=False)
    assert found["kept"] < 150e6, found


def test_the_model_gives_its_weights_away_or_stays(
    pair: tuple[NativeDenoiser, KernelDenoiser], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where weights are packed its own forward says what happened; kept, it says what it said before."""
    monkeypatch.setattr(kernel_module, "kernel", lambda *_: PackedDecoder)
    model, tokens = pair[0].model, torch.tensor([tokens_of(6, 1)])
    expected = model(tokens).logits
    given, kept = (KernelDenoiser(copy.deepcopy(model), SPEC, keep_model=keep) for keep in (False, True))
    assert torch.equal(kept.model(tokens).logits, expected)
    with pytest.raises(KernelError, match="keep_model=True"):
        given.model(tokens)
    for denoiser in (given, kept):
        (found,) = told(denoiser, [whole(denoiser.open_row(), tokens[0].tolist(), causal=True)])
        torch.testing.assert_close(found, expected[0], atol=1e-4, rtol=1e-4)


def test_int8_is_said(pair: tuple[NativeDenoiser, KernelDenoiser]) -> None:
    """Its name tells that the weights are others; a batch still equals its rows."""
    denoiser = KernelDenoiser(copy.deepcopy(pair[0].model), SPEC, weights="int8")
    assert denoiser.spec.name == "tiny with int8 weights"
    assert denoiser.spec.numerics == "row-invariant int8"
    rows = [denoiser.open_row() for _ in range(3)]
    passes = [whole(row, tokens_of(4 + 5 * row, row)) for row in rows]
    for segment, batched in zip(passes, told(denoiser, passes), strict=True):
        assert torch.equal(told(denoiser, [segment])[0], batched)
    assert not torch.equal(told(denoiser, passes)[0], told(pair[1], [whole(pair[1].open_row(), tokens_of(9, 1))])[0])
