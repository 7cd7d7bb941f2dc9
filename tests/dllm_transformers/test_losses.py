"""Losses of `forward(labels=...)`: those of every family's training, against loops over rows, blocks and tokens."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins.errors import OptionError
from dllm_plugins.libraries.private_transformers import can_set_experts
from dllm_plugins.processes.objectives import OBJECTIVES
from dllm_plugins.processes.objectives import Objective
from dllm_transformers import DiffusionModelForCausalLM

from .checkpoints import NEEDED
from .checkpoints import copy_of

#: Cases whose family published how it was trained, with what else tells its checkpoints apart.
KNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "llada_dense": ("llada", {}),
    "dream": ("dream", {}),
    "open_dcoder": ("open_dcoder", {}),
    "bert_chat": ("dllm_mdlm", {}),
    "a2d_qwen3": ("dllm_mdlm", {"preset": "mdlm"}),
    "sdar": ("sdar", {}),
    "sdar_moe": ("sdar", {}),
    "llada2_0": ("llada2", {}),
    "fastdllm_v2": ("fast_dllm_v2", {}),
    "llada_moe": ("dllm_mdlm", {}),
    "nemotron_labs": ("nemotron", {}),
    "wedlm_qwen2": ("wedlm", {}),
    "wedlm_qwen3": ("wedlm", {}),
    "stable_diffcoder": ("stable_diffcoder", {}),
}
#: Others that a checkpoint can be trained with.
CHOSEN: list[tuple[str, str, dict[str, Any]]] = [
    ("a2d_qwen3", "dllm_bd3lm", {"preset": "bd3lm"}),
    ("a2d_qwen3", "bd3lm", {"preset": "bd3lm"}),
    ("nemotron_labs", "autoregressive", {}),
    ("rnd1", "diffullama", {}),
    ("sdar", "idlm", {"family": "idlm"}),
    ("illada", "llada", {}),
    ("llada_moe", "llada", {}),
]
REFUSED = ["llada2_1", "rnd1", "illada"]
SEED, BLOCK, LENGTH = 11, 4, 11
Load = Callable[..., Any]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Load:
    """A model of a case; the folder is made once."""
    made: dict[str, Path] = {}

    def loaded(name: str, **options: Any) -> Any:
        if name not in made:
            made[name] = copy_of(name, tmp_path_factory.mktemp("hub") / name, tiny_folder)
        return DiffusionModelForCausalLM.from_pretrained(made[name], **{**NEEDED.get(name, {}), **options})

    return loaded


def batch(padded: str = "right") -> dict[str, Tensor]:
    """A row with a prompt of three tokens, and a short one that is padded."""
    ids = torch.randint(6, 60, (2, LENGTH), generator=torch.Generator().manual_seed(5))
    mask = torch.ones_like(ids)
    mask[1, slice(8, None) if padded == "right" else slice(3)] = 0
    labels = ids.clone()
    labels[0, :3] = -100
    labels[1, mask[1] == 0] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def says(model: Any, clean: list[int], noisy: list[int], objective: Objective) -> Tensor:
    """Logits of each row of one noisy text, decoded as inference would: block by block behind clean ones."""
    if not objective.clean_prefix:
        whole: Tensor = model(torch.tensor([clean if objective.causal else noisy]), causal=objective.causal).logits[0]
        return whole
    found = []
    for start in range(0, len(clean), BLOCK):
        own = noisy[start : start + BLOCK]
        order = list(range(len(own)))
        if objective.known_first:
            order.sort(key=lambda index: own[index] == model.spec.mask_id)
        seen = torch.tensor([[*clean[:start], *(own[index] for index in order)]])
        place = torch.arange(seen.shape[1])
        behind = place[:, None] < place[None, :]
        if not objective.clean:
            behind = place[:, None] // BLOCK < place[None, :] // BLOCK
        elif objective.within == "both ways":
            behind[start:] = False
        mask = torch.zeros(len(place), len(place), dtype=torch.float64).masked_fill(behind, -math.inf)
        positions = torch.tensor([[*range(start), *(start + index for index in order)]])
        logits = model(seen, attention_mask=mask[None, None], position_ids=positions).logits[0, start:]
        found.append(logits[[order.index(index) for index in range(len(own))]])
    return torch.cat(found)


def leftwards(model: Any, rows: list[tuple[list[int], list[int]]]) -> float:
    """The mean -log p of the labels of clean texts, given the tokens before them."""
    total, count = 0.0, 0
    for clean, learnt in rows:
        mask = torch.full((len(clean), len(clean)), -math.inf, dtype=torch.float64).triu(1)
        odds = torch.softmax(model(torch.tensor([clean]), attention_mask=mask[None, None]).logits[0], -1)
        for place in learnt:
            if place:
                total -= math.log(float(odds[place - 1, clean[place]]))
                count += 1
    return total / count


def masked_of(name: str, learnt: list[int], share: list[float], luck: list[float]) -> list[int]:
    """Which tokens of a row are masked."""
    found = [place for place in learnt if name == "autoregressive" or luck[place] < share[place]]
    for block in {place // BLOCK for place in learnt}:
        own = sorted((place for place in learnt if place // BLOCK == block), key=lambda place: luck[place])
        if name == "wedlm":
            found = [place for place in found if place not in own] + own[: round(len(own) * share[own[0]])]
        elif name == "stable_diffcoder" and not set(own) & set(found):
            found.append(own[0])
    return sorted(found)


def weight_of(name: str, share: float, masked: list[int], place: int, length: int, p: float) -> float:
    if name in ("llada2", "fast_dllm_v2", "autoregressive", "idlm"):
        return 1.0
    if name == "dream":
        return sum(0.05 * 0.9 ** (abs(place - other) - 1) for other in range(length) if other not in masked)
    return 1 + p / share if name == "open_dcoder" else 1 / share


def reference(model: Any, name: str, given: dict[str, Tensor], items: int | None = None) -> float:
    """The loss, token by token in doubles, each row without its padding; numbers are drawn in the documented order."""
    objective, layout = OBJECTIVES[name], model.checkpoint.layout
    shifted = layout.shifted or name == "autoregressive"
    rng = torch.Generator().manual_seed(SEED)
    low, high = {"llada2": (0.3, 0.8), "dream": (0.0, 1.0), "open_dcoder": (0.002, 0.998)}.get(name, (1e-3, 1.0))
    low = {"idlm": 1.0, "wedlm": 1e-8, "stable_diffcoder": 0.0}.get(name, low)
    per_block = name in ("bd3lm", "fast_dllm_v2", "wedlm", "stable_diffcoder")
    times = torch.rand(2, LENGTH if per_block else 1, generator=rng, dtype=torch.float64)
    luck = torch.rand(2, LENGTH, generator=rng, dtype=torch.float64)
    total, labels, count, weights, texts = 0.0, 0, 0, 0.0, []
    for row in range(2):
        real = [index for index in range(LENGTH) if given["attention_mask"][row, index]]
        clean = [int(given["input_ids"][row, index]) for index in real]
        learnt = [
            place for place, index in enumerate(real) if given["labels"][row, index] != -100 and (place or not shifted)
        ]
        share = [
            low + (high - low) * float(times[row, place // BLOCK if per_block else 0]) for place in range(len(real))
        ]
        if name == "stable_diffcoder":
            share = [max(one, 1 / BLOCK) for one in share]
        masked = masked_of(name, learnt, share, [float(luck[row, index]) for index in real])
        texts.append((clean, learnt))
        rest = [place for place in learnt if place not in masked]
        for part in (masked, rest) if name == "fast_dllm_v2" else (masked,):
            noisy = [model.spec.mask_id if place in part else token for place, token in enumerate(clean)]
            logits = says(model, clean, noisy, objective)
            if name == "bd3lm":
                logits[:, model.spec.mask_id] = -math.inf
            for place in part:
                odds = torch.softmax(logits[place - shifted], -1)
                p = float(odds[clean[place]])
                weight = weight_of(name, share[place], part, place, len(real), p)
                total, weights = total - math.log(p) * weight, weights + weight
        labels, count = labels + len(learnt), count + len(masked)
    by_masked = name in ("dream", "open_dcoder", "diffullama", "llada2", "nemotron")
    mean = total / (count if by_masked else weights if name == "wedlm" else labels)
    if objective.clean:
        two = {"idlm": (1.0, 0.2), "nemotron": (0.3, 1.0), "wedlm": (0.5, 0.5)}[name]
        mean = two[0] * mean + two[1] * leftwards(model, texts)
    return mean if items is None else mean * labels / items


def loss(model: Any, given: dict[str, Tensor], **more: Any) -> Any:
    return model(**given, generator=torch.Generator().manual_seed(SEED), **more)


@pytest.mark.parametrize("padded", ["right", "left"])
@pytest.mark.parametrize(
    ("case", "name", "options"),
    [(case, name, options) for case, (name, options) in KNOWN.items()] + CHOSEN,
)
def test_loss_of_the_family(case: str, name: str, options: dict[str, Any], padded: str, load: Load) -> None:
    """Within 1e-5 in doubles of the plain loops, whatever is padded; and as a share of a larger step."""
    model = load(case, **options).double()
    if can_set_experts(model.native):
        # The others have no doubles.
        model.native.set_experts_implementation("eager")
    if KNOWN.get(case, ("",))[0] != name and "family" not in options:
        model.objective = name
    more = {"block_length": BLOCK} if OBJECTIVES[name].clean_prefix else {}
    given = batch(padded)
    with torch.no_grad():
        expected = reference(model, name, given)
        found = loss(model, given, **more)
        assert float(found.loss) == pytest.approx(expected, rel=1e-5, abs=1e-5)
        assert found.logits.shape[:2] == given["input_ids"].shape
        part = loss(model, given, num_items_in_batch=torch.tensor(50), **more).loss
        assert float(part) == pytest.approx(reference(model, name, given, 50), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("case", REFUSED)
def test_unpublished_training_is_refused(case: str, load: Load) -> None:
    """By an error that says why, and which objectives fit."""
    with pytest.raises(OptionError, match=r"no loss of its own .*publish.*; set model\.objective"):
        loss(load(case), batch())


@pytest.mark.parametrize("name", ["llada_dense", "dream"])
def test_logits_are_those_of_the_noised_text(name: str, load: Load) -> None:
    """At every token, though the loss asks about masked ones only; the gradient is the loss's."""
    model, given = load(name), batch("left")
    found = loss(model, given)
    rng = torch.Generator().manual_seed(SEED)
    time = torch.rand(2, 1, generator=rng, dtype=torch.float64)
    low = 0.0 if name == "dream" else 1e-3
    masked = torch.rand(2, LENGTH, generator=rng, dtype=torch.float64) < low + (1 - low) * time
    masked &= given["labels"] != -100
    if name == "dream":
        masked[:, 1:] &= given["attention_mask"][:, :-1].bool()
        masked[:, 0] = False
    noisy = given["input_ids"].masked_fill(masked, model.spec.mask_id)
    torch.testing.assert_close(found.logits, model(noisy, given["attention_mask"]).logits.detach())
    assert not found.logits.requires_grad
    found.loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_wrong_labels_and_objectives(load: Load) -> None:
    """Everything that would be learnt wrongly is said."""
    model, given = load("llada_dense"), batch()
    shifted = given | {"labels": given["labels"].roll(-1, dims=1)}
    for wrong, match in (
        (shifted, "differ from input_ids"),
        (given | {"labels": given["labels"][:, 1:]}, r"shape \(2, 10\)"),
        (given | {"attention_mask": torch.zeros(2, 1, LENGTH, LENGTH)}, "4 dimensions"),
        (given | {"block_length": 4}, "block_length has no effect"),
        (given | {"causal": True}, "causal has no effect"),
    ):
        with pytest.raises(OptionError, match=match):
            model(**wrong)
    names = (("lada", "is none; set"), ("sdar", ""), ("autoregressive", "does not fit"), ("wedlm", "does not fit"))
    for objective, match in (*names, ("nemotron", "does not fit"), ("idlm", "does not fit")):
        model.objective = objective
        if match:
            with pytest.raises(OptionError, match=match):
                model(**given)
    with pytest.raises(OptionError, match="generator has no effect without labels"):
        model(given["input_ids"], generator=torch.Generator())


def test_objectives_refuse_what_has_no_effect(load: Load) -> None:
    """Blocks where there are none, also without noise."""
    model = load("nemotron_labs")
    model.objective = "autoregressive"
    with pytest.raises(OptionError, match="block_length has no effect"):
        model(**batch(), block_length=4)


def test_seeds_decide_and_prompts_do_not_count(load: Load) -> None:
    """The same seed gives the same loss; other labels of the prompt another; no label none, with a gradient."""
    model, given = load("llada_dense"), batch()
    first, again = (loss(model, given).loss for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, model(**given, generator=torch.Generator().manual_seed(12)).loss)
    assert not torch.equal(first, loss(model, given | {"labels": given["input_ids"]}).loss)
    nothing = loss(model, given | {"labels": torch.full_like(given["labels"], -100)}).loss
    nothing.backward()
    assert float(nothing.detach()) == 0
