"""Pairs from files: one tokenizer or two, by `load_model`, by name, through the hosts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.constraints.values import Regex
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import DllmError
from dllm_plugins.errors import OptionError
from dllm_plugins.models import auto_backend
from dllm_plugins.pairs import named
from dllm_plugins.pairs.bridge import OneTokenizer
from dllm_plugins.pairs.bridge import TwoTokenizers
from dllm_plugins.pairs.denoiser import PairDenoiser

from ..conftest import make_tokenizer
from .conftest import other_tokenizer

Load = Callable[..., Model]
MODES = ("ar", "auto")


@pytest.fixture(scope="module")
def load(tiny_folder: Path) -> Load:
    """A pair of the tiny model's base and a drafter, in float32."""

    def made(drafter: Path, **options: Any) -> Model:
        pair = {"ar": str(tiny_folder), "diffusion": str(drafter), **options}
        return load_model(pair=pair, dtype="float32", device="cpu")

    return made


@pytest.fixture(scope="module")
def pairs(load: Load, drafter_folder: Path, foreign_folder: Path) -> dict[str, Model]:
    return {"one": load(drafter_folder), "two": load(foreign_folder)}


@pytest.fixture(scope="module")
def plain_file(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's base as a GGUF file, which no family of diffusion models reads."""
    pytest.importorskip("llama_cpp", reason="files are written and read with it; run `make gguf`")
    from dllm_plugins.llama_cpp.convert import convert_base

    return convert_base(tiny_folder, tmp_path_factory.mktemp("plain") / "plain.gguf", quant="F32")


def told(model: Model, mode: str, **options: Any) -> list[Any]:
    """Unequal chats and texts, answered together."""
    requests = []
    for number, text in enumerate(("how are you?", "the sky is", "π ≈ 3, and the sea is gr")):
        sampling = {"temperature": 0.5 * number, "seed": number} if number else {}
        given = {"mode": mode, "max_new_tokens": 16 + number, **sampling, **options}
        tokens = model.encode_chat([{"role": "user", "content": text}]) if number == 1 else model.encode_text(text)
        requests.append(Request(tokens, SamplingConfig(**given)))
    return model.engine().generate(requests)


@pytest.mark.parametrize("tokenizers", ["one", "two"])
def test_mode_auto(
    tiny: Model, pairs: dict[str, Model], tokenizers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pair's drafts or none, whichever is faster, and as was told beforehand: the text is the target's own."""
    monkeypatch.setenv("DLLM_ROUTES", str(tmp_path / "routes.json"))
    engine, seen = pairs[tokenizers].engine(), []
    for text in ("how are you?", "the sky is"):
        asked = {mode: Request(tiny.encode_text(text), SamplingConfig(mode=mode, max_new_tokens=20)) for mode in MODES}
        [plain] = tiny.engine().generate([asked["ar"]])
        route = engine.router.explain(asked["auto"], 1)
        assert route.modes == ("pair", "ar")
        [found] = engine.generate([asked["auto"]])
        assert (found.tokens, found.usage.route, found.usage.mode) == (plain.tokens, str(route), route.mode)
        seen.append(route.mode)
    assert seen == ["pair", "ar"]


@pytest.mark.parametrize("tokenizers", ["one", "two"])
@pytest.mark.parametrize(
    "options",
    [{}, {"constraint": Regex("[a-c]{9}f")}, {"logprobs": 1}, {"repetition_penalty": 1.3}, {"stop": ["a"]}],
    ids=["plain", "constraint", "logprobs", "penalty", "stop"],
)
def test_the_text_is_the_targets_own(
    tiny: Model, pairs: dict[str, Model], tokenizers: str, options: dict[str, Any]
) -> None:
    """The base of the tiny model by itself, and with drafts of either tokenizer."""
    expected, found = told(tiny, "ar", **options), told(pairs[tokenizers], "pair", **options)
    assert [(one.tokens, one.text, one.reason) for one in found] == [
        (one.tokens, one.text, one.reason) for one in expected
    ]
    assert [one.logprobs for one in found] == [one.logprobs for one in expected]
    assert all(one.usage.passes["draft"] for one in found)


def test_drafts_are_cut_anew() -> None:
    """What the other tokenizer says becomes tokens of the target, behind its own; half a character becomes none."""
    own, other = make_tokenizer(), other_tokenizer()
    bridge = TwoTokenizers(own, other, frozenset({0}))
    text = own.encode("the sky is", add_special_tokens=False)
    over = bridge.over(text)
    assert over is not None
    assert len(over) < len(text)
    import torch

    def drafts(said: str, *more: int) -> torch.Tensor:
        ids = [*other.encode(said, add_special_tokens=False), *more]
        return torch.tensor([[token, 0.5] for token in ids], dtype=torch.float64)

    found = bridge.back(text, over, drafts(" blue and", 0, 5))
    assert own.decode([int(token) for token in found[:, 0]]) == " blue and"
    half = other.encode("é", add_special_tokens=False)[:1]
    assert own.decode([int(token) for token in bridge.back(text, over, drafts(" ", *half))[:, 0]]) == " "
    assert not len(bridge.back(text, over, drafts("", 0)))
    assert bridge.over(own.encode("é", add_special_tokens=False)[:1]) is None


def test_good_drafts_of_another_tokenizer_are_taken(pairs: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    """A drafter that knows the text: every draft is accepted, though no id is the same."""
    import torch

    pair = pairs["two"]
    assert isinstance(pair.denoiser, PairDenoiser)
    own, other = pair.tokenizer, other_tokenizer()
    prompt = pair.encode_text("how are you?")
    # Characters that can be written.
    asked = SamplingConfig(mode="ar", max_new_tokens=31, constraint=Regex("[a-z ]{30}"))
    [plain] = pair.engine().generate([Request(prompt, asked)])
    whole = own.decode([*prompt, *plain.tokens])

    def knowing(wanted: Any) -> dict[int, torch.Tensor]:
        found = {}
        for row, (text, draws) in wanted.items():
            rest = whole[len(other.decode(text)) :]
            ids = other.encode(rest, add_special_tokens=False)[: len(draws)]
            found[row] = torch.tensor([[token, 1.0] for token in ids], dtype=torch.float64).reshape(-1, 2)
        return found

    monkeypatch.setattr(pair.denoiser.drafter, "draft", knowing)
    [found] = pair.engine().generate([Request(prompt, asked.with_options(mode="pair"))])
    assert found.tokens == plain.tokens
    assert found.usage.total_passes < 28
    assert found.usage.drafts is not None
    assert found.usage.drafts["denoiser_accepted"] == found.usage.drafts["denoiser_verified"] > 8


def test_what_does_not_fit(load: Load, drafter_folder: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """Each refusal names the model, and what would do."""
    drafter = str(drafter_folder)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"ar": drafter, "diffusion": drafter}, "cannot verify drafts: it decodes in mode 'diffusion'"),
        ({"ar": str(tiny_folder)}, "pair has diffusion=None; give a name"),
        ({"ar": str(tiny_folder), "diffusion": drafter, "drafts": 3}, "pair has drafts=3; it takes ar, diffusion"),
        ({"ar": str(tiny_folder), "diffusion": drafter, "draft_length": 17}, "draft_length=17; give a number from 1"),
        ({"ar": str(tiny_folder), "diffusion": drafter, "ar_options": {"compile": True}}, "compile=True is of no use"),
        ({"ar": str(tiny_folder), "diffusion": drafter, "ar_options": {"speed": 1}}, "speed"),
    ]
    for pair, error in cases:
        with pytest.raises(DllmError, match=error):
            load_model(pair=pair, dtype="float32")
    with pytest.raises(OptionError, match="family='sdar' is for one model, and a pair has two"):
        load_model(pair={"ar": str(tiny_folder), "diffusion": drafter}, family="sdar")
    with pytest.raises(OptionError, match="pair=3: give a mapping"):
        load_model(pair=3)
    assert load(drafter_folder, draft_length=7).denoiser.spec.draft_length == 7


@pytest.mark.parametrize("backend", ["kernels", "llama_cpp"])
def test_a_drafter_in_a_gguf_file(
    tiny: Model, tiny_folder: Path, load: Load, drafter_folder: Path, tmp_path: Path, backend: str
) -> None:
    """Through the kernels and through llama.cpp, with one tokenizer."""
    pytest.importorskip("llama_cpp", reason="files are written and read with it; run `make gguf`")
    from dllm_plugins.llama_cpp.convert import convert

    file = tmp_path / "drafter.gguf"
    convert(str(drafter_folder), file, quant="F32")
    pair = load(file, diffusion_options={"backend": backend})
    assert isinstance(pair.denoiser, PairDenoiser)
    assert isinstance(pair.denoiser.bridge, OneTokenizer)
    expected, found = told(tiny, "ar"), told(pair, "pair")
    assert [one.tokens for one in found] == [one.tokens for one in expected]
    assert all(one.usage.drafts["denoiser_verified"] > 0 for one in found if one.usage.drafts)
    pair.close()


@pytest.mark.parametrize("backend", ["kernels", "llama_cpp"])
@pytest.mark.parametrize("tokenizers", ["one", "two"])
def test_a_target_in_a_gguf_file(
    tiny: Model, plain_file: Path, drafter_folder: Path, foreign_folder: Path, backend: str, tokenizers: str
) -> None:
    """An ordinary model's file says what its folder says, by itself and with drafts of either tokenizer."""
    drafter = str(drafter_folder if tokenizers == "one" else foreign_folder)
    given = {"ar": str(plain_file), "diffusion": drafter, "ar_options": {"backend": backend}}
    pair = load_model(pair=given, dtype="float32")
    for options in ({}, {"constraint": Regex("[a-c]{9}f")}, {"stop": ["a"]}):
        expected = told(tiny, "ar", **options)
        for mode in ("ar", "pair"):
            found = told(pair, mode, **options)
            assert [(one.tokens, one.text) for one in found] == [(one.tokens, one.text) for one in expected]
            assert all(one.usage.numerics == "row-invariant" for one in found)
            assert all(("draft" in one.usage.passes) == (mode == "pair") for one in found)
    pair.close()
    chosen = auto_backend(pair=given, dtype="float32")
    assert chosen.backend == f"{backend}, kernels"
    assert chosen.modes[:3] == ("pair", "ar", "alternating")


def test_files_that_are_no_targets(plain_file: Path, drafter_folder: Path, tmp_path: Path) -> None:
    """Options of diffusion models have no use, and files of other architectures cannot verify."""
    other = tmp_path / "other.gguf"
    other.write_bytes(
        plain_file.read_bytes().replace(
            b"\x05\x00\x00\x00\x00\x00\x00\x00llama", b"\x05\x00\x00\x00\x00\x00\x00\x00gemma"
        )
    )
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (plain_file, {"preset": "mdlm"}, "preset='mdlm' is of no use"),
        (plain_file, {"base": "dllm"}, "it is of the default model"),
        (other, {}, "is a 'gemma' file, which cannot verify drafts; files that can are llama or qwen2 or qwen3"),
    ]
    for file, options, error in cases:
        with pytest.raises(DllmError, match=error):
            load_model(pair={"ar": str(file), "diffusion": str(drafter_folder), "ar_options": options})


@pytest.mark.usefixtures("own_pairs")
def test_names(load: Load, drafter_folder: Path, tiny_folder: Path) -> None:
    """Registered, loaded, removed; a damaged file is said to be one."""
    pair = named.Pair(str(tiny_folder), str(drafter_folder), draft_length=3)
    named.add("both", pair)
    with pytest.raises(OptionError, match="'both' is registered already"):
        named.add("both", pair)
    model = load_model("both", dtype="float32")
    assert model.name == "both"
    assert model.denoiser.spec.draft_length == 3
    assert named.remove("both") == pair
    assert named.remove("both") is None
    with pytest.raises(DllmError, match="unknown model 'both'"):
        load_model("both")
    named.pairs_file().write_text(json.dumps({"both": {"ar": 3}}))
    with pytest.raises(CheckpointError, match="cannot read the registered pairs"):
        load_model("both")
    assert load_model(str(drafter_folder), dtype="float32").name == str(drafter_folder)
