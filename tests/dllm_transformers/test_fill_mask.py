"""`pipeline("fill-mask")` of diffusion checkpoints."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM
from transformers import AutoTokenizer
from transformers import pipeline

from dllm_plugins.errors import OptionError
from dllm_transformers import Regex
from dllm_transformers.export import export
from dllm_transformers.weights import shared_model_of

from .checkpoints import copy_of


def made(name: str, folder: Path, tokenizer: Path) -> Any:
    """The pipeline of a checkpoint, as users make it."""
    return pipeline("fill-mask", model=str(copy_of(name, folder / name, tokenizer)), device="cpu")


@pytest.mark.parametrize("name", ["llada_dense", "dream", "sdar"])
def test_candidates_for_every_mask(name: str, tmp_path: Path, tiny_folder: Path) -> None:
    """Their scores are the model's own word at each mask, by the row that predicts it; the mask is none of them."""
    filler = made(name, tmp_path, tiny_folder)
    mask = filler.tokenizer.mask_token
    assert filler.tokenizer.mask_token_id == filler.model.spec.mask_id
    text = f"a{mask}b{mask}"
    found = filler(text, top_k=3)
    assert [len(candidates) for candidates in found] == [3, 3]
    ids = filler.tokenizer(text, return_tensors="pt").input_ids
    places = (ids[0] == filler.model.spec.mask_id).nonzero()[:, 0]
    with torch.inference_mode():
        logits = filler.model(ids).logits[0]
    for place, candidates in zip(places.tolist(), found, strict=True):
        row = logits[max(place - int(filler.model.spec.shifted), 0)].clone()
        row[filler.model.spec.mask_id] = -torch.inf
        best = torch.softmax(row, -1).topk(3)
        assert [one["token"] for one in candidates] == best.indices.tolist()
        assert [one["score"] for one in candidates] == pytest.approx(best.values.tolist(), abs=1e-5)
        assert filler.model.spec.mask_id not in [one["token"] for one in candidates]


def test_one_mask_and_targets(tmp_path: Path, tiny_folder: Path) -> None:
    """One list for one mask, as users of the pipeline know it."""
    filler = made("llada_dense", tmp_path, tiny_folder)
    found = filler(f"a{filler.tokenizer.mask_token}b", targets=["x", "y"])
    assert {one["token_str"] for one in found} == {"x", "y"}
    assert {one["sequence"] for one in found} == {"axb", "ayb"}


def test_the_tokenizer_of_the_user_is_left_alone(tmp_path: Path, tiny_folder: Path) -> None:
    """It may serve other models, too."""
    folder = copy_of("llada_dense", tmp_path / "llada", tiny_folder)
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert tokenizer.mask_token is None
    filler: Any = pipeline("fill-mask", model=model, tokenizer=tokenizer)
    assert filler.tokenizer.mask_token_id == model.spec.mask_id
    assert tokenizer.mask_token is None


def test_a_constraint_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    """One pass says something of every mask by itself; what holds gaps to it is named."""
    filler = made("llada_dense", tmp_path, tiny_folder)
    with pytest.raises(OptionError, match=r"no meaning in a fill-mask pipeline.*targets=.*model[.]generate"):
        filler(f"a{filler.tokenizer.mask_token}b", constraint=Regex("x|y"))


def test_the_default_model_sees_what_follows(tiny_folder: Path, tmp_path: Path) -> None:
    """What its denoiser makes of the text behind a mask is in the scores; generate() would put the best one there."""
    denoiser = tiny_folder.parent / "denoiser.safetensors"
    tri_mode = export(tmp_path / "model", base=tiny_folder, denoiser=denoiser, dtype="float32")
    filler: Any = pipeline("fill-mask", model=str(tri_mode), device="cpu")
    mask = filler.tokenizer.mask_token
    [first, second] = filler(f"once {mask} a{mask} time", top_k=3)
    ids = filler.tokenizer(f"once {mask} a{mask} time", return_tensors="pt").input_ids
    masked = ids == filler.tokenizer.mask_token_id
    shared = shared_model_of(filler.model, None).model.denoiser.spec.mask_id
    found = filler.model.generate(ids.masked_fill(masked, shared), do_sample=False)
    assert [first[0]["token"], second[0]["token"]] == found[masked].tolist()
    assert all(one["score"] >= other["score"] for one, other in pairwise(first))
    behinds = ("xyzzy", " upon", "0123456789", " the end")
    assert len({str(filler(f"once{mask}{text}", top_k=3)[0]["score"]) for text in behinds}) > 1
    assert AutoTokenizer.from_pretrained(tri_mode).mask_token is None
