"""From two names to one model: what each is, whether they fit one another, and by which tokens they speak."""

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dllm_plugins.default_model.plain import ARCHITECTURES
from dllm_plugins.default_model.plain import load_plain
from dllm_plugins.errors import OptionError
from dllm_plugins.families.files import ADAPTER
from dllm_plugins.families.files import base_of
from dllm_plugins.families.files import hub_folder
from dllm_plugins.families.files import is_adapter
from dllm_plugins.files.replacing import read_config
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.messages import message
from dllm_plugins.messages import shown
from dllm_plugins.models import Chosen
from dllm_plugins.models import Model
from dllm_plugins.models import auto_backend
from dllm_plugins.models import is_gguf
from dllm_plugins.models import load_model
from dllm_plugins.models import load_options
from dllm_plugins.pairs.bridge import Bridge
from dllm_plugins.pairs.bridge import OneTokenizer
from dllm_plugins.pairs.bridge import TwoTokenizers
from dllm_plugins.pairs.denoiser import DRAFT_LENGTH
from dllm_plugins.pairs.denoiser import PairDenoiser
from dllm_plugins.pairs.drafter import Drafter
from dllm_plugins.pairs.guests import Guests
from dllm_plugins.pairs.model import PairModel
from dllm_plugins.pairs.named import Pair
from dllm_plugins.pairs.plain_file import auto_plain_file
from dllm_plugins.pairs.plain_file import is_plain_file
from dllm_plugins.pairs.plain_file import load_plain_file

#: Options of `load_model` that hold for both models; others are given to each.
_BOTH = ("dtype", "device")


def load(name: str, pair: Pair, options: LoadOptions) -> Model:
    """Load both models of a pair.

    :param name: what the pair is called.
    :raises OptionError: for models that do not fit one another, and options that only one of them takes.
    :raises CheckpointError: if one of them is missing or damaged.
    """
    both = _for_both(options)
    target, drafter = target_of(pair, **both), load_model(pair.diffusion, **{**both, **pair.diffusion_options})
    return joined(target, drafter, pair, name)


def joined(target: Model, drafter: Model, pair: Pair, name: str) -> Model:
    """A pair of loaded models.

    :param pair: what they are called.
    :param name: what the pair is called.
    :raises OptionError: for models that do not fit one another.
    """
    check(pair.ar, target.denoiser.spec.modes)
    one = same_tokens(target, drafter)
    bridge = OneTokenizer() if one else bridged(target, drafter, pair)
    made = Drafter(drafter.denoiser, target.denoiser.spec.vocabulary if one else None)
    guests = Guests(drafter, bridge)
    denoiser = PairDenoiser(target.denoiser, made, bridge, guests, name, pair.draft_length or DRAFT_LENGTH)
    return PairModel(name, denoiser, target.tokenizer, drafter, bridge)


def auto(pair: Pair, options: LoadOptions) -> Chosen:
    """What computes both, told without loading weights.

    :raises OptionError: for a target that cannot verify, as far as its small files tell.
    :raises CheckpointError: if one of them is missing or damaged.
    """
    both = _for_both(options)
    if _is_plain(pair.ar, pair.ar_options):
        target = _auto_plain(pair.ar, load_options({**both, **pair.ar_options}))
    else:
        target = auto_backend(pair.ar, **{**both, **pair.ar_options})
        # Where it is not known before it is loaded, it is checked then.
        check(pair.ar, target.modes or ("ar",))
    drafter = auto_backend(pair.diffusion, **{**both, **pair.diffusion_options})
    reason = f"{pair.ar} verifies ({target.reason}); {pair.diffusion} drafts ({drafter.reason})"
    own = ("pair", "ar", "alternating")
    modes = (*own, *(mode for mode in drafter.modes if mode not in own))
    return Chosen(f"{target.backend}, {drafter.backend}", reason, target.faster, modes)


def _for_both(options: LoadOptions) -> dict[str, Any]:
    default = LoadOptions()
    given = {
        name: getattr(options, name)
        for name in LoadOptions.__dataclass_fields__
        if name != "pair" and getattr(options, name) != getattr(default, name)
    }
    for name in given.keys() - set(_BOTH):
        raise OptionError(
            message(
                "{}={} is for one model, and a pair has two; give it to one of them: ar_options or diffusion_options "
                "of the pair",
                name,
                shown(given[name]),
            )
        )
    return given


def _is_plain(name: str, options: Mapping[str, Any]) -> bool:
    """Whether a name is that of an ordinary model, and nobody says that it is a diffusion model."""
    if "family" in options or not (is_gguf(name) or "/" in name or Path(name).is_dir()):
        return False
    if is_gguf(name):
        return is_plain_file(Path(name))
    folder = hub_folder(name, ("config.json", ADAPTER))
    folder = base_of(folder, ("config.json",)) if is_adapter(folder) else folder
    found = read_config(folder).get("architectures") or []
    return bool(ARCHITECTURES.intersection(found))


def _auto_plain(name: str, options: LoadOptions) -> Chosen:
    if is_gguf(name):
        return auto_plain_file(name, options)
    return Chosen("kernels", "an ordinary model, on the block decoder")


def target_of(pair: Pair, **both: Any) -> Model:
    """Load the model of a pair that verifies.

    :param both: options of `load_model` for both models.
    :raises OptionError: for options that it does not take.
    :raises CheckpointError: if it is missing or damaged.
    """
    options = {**both, **pair.ar_options}
    if _is_plain(pair.ar, pair.ar_options):
        return (load_plain_file if is_gguf(pair.ar) else load_plain)(pair.ar, load_options(options))
    return load_model(pair.ar, **options)


def check(name: str, modes: Sequence[str]) -> None:
    """Refuse a target that does not decode one token after the other.

    :param modes: what it decodes in.
    :raises OptionError: naming what does.
    """
    if "ar" not in modes:
        raise OptionError(
            message(
                "{} cannot verify drafts: it decodes in mode {}, and a target needs mode 'ar'; take an ordinary Llama, "
                "Qwen2 or Qwen3, in a GGUF file or not, the default model dllm, or a Nemotron-Labs-Diffusion",
                name,
                " or ".join(map(repr, modes)),
            )
        )


def same_tokens(one: Model, other: Model) -> bool:
    """Whether both read the same ids, but for special tokens that only one of them has."""
    if not (_has_text(one) or _has_text(other)):
        return one.denoiser.spec.vocabulary == other.denoiser.spec.vocabulary
    if not (_has_text(one) and _has_text(other)):
        return False
    first, second = one.tokenizer.get_vocab(), other.tokenizer.get_vocab()
    added = {*one.tokenizer.get_added_vocab(), *other.tokenizer.get_added_vocab()}
    shared = first.keys() & second.keys()
    return all(first[token] == second[token] for token in shared) and (first.keys() ^ second.keys()) <= added


def bridged(target: Model, drafter: Model, pair: Pair) -> Bridge:
    """What leads from one tokenizer to the other.

    :raises OptionError: if one of them has no text.
    """
    for model, name in ((target, pair.ar), (drafter, pair.diffusion)):
        if not _has_text(model):
            raise OptionError(
                message(
                    "{} and {} have no vocabulary in common, and {} has no tokenizer to lead from one to the other; "
                    "add its tokenizer's files",
                    pair.ar,
                    pair.diffusion,
                    name,
                )
            )
    return TwoTokenizers(target.tokenizer, drafter.tokenizer, drafter.denoiser.spec.stop_ids)


def _has_text(model: Model) -> bool:
    return hasattr(model.tokenizer, "get_vocab")
