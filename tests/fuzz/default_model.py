"""Damaged bases and denoisers of the default model: `python -m tests.fuzz.default_model`."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import logging

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.denoisers.low_rank import DRAFTS
from dllm_plugins.denoisers.low_rank import FORMAT
from dllm_plugins.denoisers.weights import EMBEDDING
from dllm_plugins.denoisers.weights import HEAD
from dllm_transformers import TriModeForCausalLM
from dllm_transformers import export

from ..conftest import make_tri_mode
from . import damage
from .watch import Attempt
from .watch import run

_TOGETHER = TemporaryDirectory(prefix="dllm-fuzz-sound-")
_SOUND = make_tri_mode(Path(_TOGETHER.name) / "base")
_EXPORTED = export(_SOUND.with_name("exported"), _SOUND, _SOUND.with_name("denoiser.safetensors"), "float32")
_DTYPES = (torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool, torch.float16, torch.bfloat16, torch.float64)
_PLACES = ("base/model.safetensors", "denoiser.safetensors", "exported/model.safetensors")
Tensors = dict[str, Tensor]


def _copy(folder: Path) -> Path:
    """All files of a sound model, with ids for drafts."""
    shutil.copytree(_SOUND, folder / "base")
    shutil.copytree(_EXPORTED, folder / "exported")
    file = folder / "denoiser.safetensors"
    drafts = torch.arange(0, 259, 3, dtype=torch.int32)
    save_file(load_file(_SOUND.with_name(file.name)) | {DRAFTS: drafts}, file, metadata={"format": FORMAT})
    return folder


def _answer(random: Random, folder: Path, changed: Path) -> Callable[[], object]:
    """A way in which the changed file is read and computed with."""
    options = {"dtype": random.choice(("float32", "bfloat16")), "backend": random.choice(("auto", "torch", "kernels"))}
    mode = random.choice(("speculative", "diffusion", "ar"))
    config = SamplingConfig(mode=mode, max_new_tokens=4, temperature=random.choice((0.0, 0.9)))

    def decode() -> None:
        base, denoiser = folder / "base", folder / "denoiser.safetensors"
        model = load_model(base=base, denoiser=denoiser, device="cpu", **options)
        found = model.engine().generate([Request([5, 6, 7], config)])[0].tokens
        assert all(0 <= token < model.denoiser.spec.vocabulary for token in found)

    def exported() -> None:
        model = TriModeForCausalLM.from_pretrained(folder / "exported", dtype=torch.float32)
        model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4)

    return exported if folder / "exported" in changed.parents else decode


def _changed(random: Random, tensors: Tensors) -> str:
    """Change one tensor, in a way that an exporter might."""
    name, other = random.choice(sorted(tensors)), random.choice(sorted(tensors))
    tensor = tensors[name]
    axis = random.randrange(tensor.dim())
    change, dtype = random.choice(sorted(CHANGES)), random.choice(_DTYPES)
    if change == "exchanged":
        tensors[name], tensors[other] = tensors[other], tensor
        return f"{name} and {other} are exchanged"
    if change == "another dtype":
        tensors[name] = tensor.to(dtype)
        return f"{name} is {dtype}"
    if change == "gone":
        del tensors[name]
    elif change == "doubled":
        tensors[random.choice((f"{name}_2", f"x.{name}", HEAD, "model.layers.2.mlp.up_proj.weight"))] = tensor
    else:
        tensors[name] = CHANGES[change](tensor, axis)
    return f"{name} is {change}"


CHANGES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "gone": lambda tensor, _: tensor,
    "doubled": lambda tensor, _: tensor,
    "exchanged": lambda tensor, _: tensor,
    "another dtype": lambda tensor, _: tensor,
    "shorter": lambda tensor, axis: tensor.narrow(axis, 0, tensor.shape[axis] - 1),
    "longer": lambda tensor, axis: torch.cat([tensor, tensor.narrow(axis, 0, 1)], axis),
    "turned": lambda tensor, _: tensor.mT if tensor.dim() > 1 else tensor[:, None],
    "flat": lambda tensor, _: tensor.flatten(),
    "deeper": lambda tensor, axis: tensor.unsqueeze(axis),
    "empty": lambda tensor, axis: tensor.narrow(axis, 0, 0),
    "large": lambda tensor, _: tensor * 1000,
    "negative": lambda tensor, _: -tensor - 1,
    "infinite": lambda tensor, _: tensor / 0 if tensor.is_floating_point() else tensor,
}


def _fits(sound: Tensors, changed: Tensors) -> bool:
    """Whether the tensors are all that a model of this config has; an independent look."""
    changed = dict(changed)
    head = changed.pop(HEAD, None)
    embedding = changed.get(EMBEDDING)
    if head is not None and (embedding is None or not torch.equal(head, embedding)):
        return False
    if changed.keys() != sound.keys():
        return False
    for name, tensor in changed.items():
        if name.endswith(DRAFTS):
            inside = tensor.dim() == 1 and len(tensor) > 0 and not tensor.is_floating_point()
            if not inside or bool(((tensor < 0) | (tensor > 258)).any()):
                return False
        elif tensor.shape != sound[name].shape or not bool(tensor.is_floating_point() and tensor.isfinite().all()):
            return False
    return True


def tensors(random: Random, folder: Path) -> tuple[str, Callable[[], object]]:
    """One tensor of a file; a file that contradicts the config must not load."""
    file = _copy(folder) / random.choice(_PLACES)
    sound = load_file(file)
    changed = dict(sound)
    what = _changed(random, changed)
    whole = {name: tensor.contiguous().clone() for name, tensor in changed.items()}
    save_file(whole, file, metadata={"format": FORMAT if "denoiser" in file.name else "pt"})
    use, fits = _answer(random, folder, file), _fits(sound, changed)

    def strictly() -> None:
        use()
        if not fits:
            raise AssertionError("it was taken")

    return f"{file.relative_to(folder)}: {what}", strictly


def twice(random: Random, folder: Path) -> tuple[str, Callable[[], object]]:
    """The same tensor in two files."""
    file = _copy(folder) / random.choice(("base", "exported")) / "model.safetensors"
    found = load_file(file)
    name = random.choice(sorted(found))
    save_file({name: found[name]}, file.with_name("zzz.safetensors"))
    use = _answer(random, folder, file)

    def strictly() -> None:
        use()
        raise AssertionError("it was taken")

    return f"{file.relative_to(folder)}: {name} twice", strictly


def header(random: Random, folder: Path) -> tuple[str, Callable[[], object]]:
    """Bytes of a file, or one key of its header."""
    file = _copy(folder) / random.choice(_PLACES)
    what = random.choice((damage.damage_header, damage.damage_bytes))(random, file)
    return f"{file.relative_to(folder)}: {what}", _answer(random, folder, file)


def numbers(random: Random, folder: Path) -> tuple[str, Callable[[], object]]:
    """One key of a config."""
    file = _copy(folder) / random.choice(("base", "exported")) / "config.json"
    return f"{file.relative_to(folder)}: {damage.change_key(random, file)}", _answer(random, folder, file)


def sound(random: Random, folder: Path) -> tuple[str, Callable[[], object]]:
    """Nothing: what is refused elsewhere is refused for its damage."""
    file = _copy(folder) / random.choice(_PLACES)
    return "sound", _answer(random, folder, file)


ATTEMPTS: dict[str, Attempt] = {
    "sound": sound,
    "tensors": tensors,
    "numbers": numbers,
    "tensors again": tensors,
    "header": header,
    "twice": twice,
}


if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    sys.exit(min(run(ATTEMPTS), 1))
