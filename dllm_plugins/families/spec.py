"""What the engine must know of a checkpoint, from its config, its tokenizer and its family."""

from collections.abc import Mapping
from typing import Any
from typing import Literal

from dllm_plugins.config import SamplingConfig
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.families.checkpoint import Checkpoint
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.presets import preset_of
from dllm_plugins.families.presets import presets_of
from dllm_plugins.families.presets import tell
from dllm_plugins.files.limits import BLOCK
from dllm_plugins.files.limits import VOCABULARY
from dllm_plugins.files.limits import whole
from dllm_plugins.files.reading import reading
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.messages import message
from dllm_plugins.modes.base import Sampler

#: Where configs say how long a block is.
BLOCK_KEYS = ("block_size", "bd_size", "wedlm_window_size", "canvas_length")


def make_spec(
    name: str, checkpoint: Checkpoint, tokenizer: Any, options: LoadOptions, modes: Mapping[str, Sampler]
) -> ModelSpec:
    """A checkpoint as the engine sees it.

    :param modes: all that are registered, by name.
    :raises CheckpointError: if nothing says which id is the mask, or which sampler is meant.
    :raises OptionError: for a preset that does not fit the family.
    """
    with reading(checkpoint.folder):
        return _spec(name, checkpoint, tokenizer, options, modes)


def _spec(
    name: str, checkpoint: Checkpoint, tokenizer: Any, options: LoadOptions, registered: Mapping[str, Sampler]
) -> ModelSpec:
    layout, vocabulary = checkpoint.layout, checkpoint.vocabulary
    modes = modes_of(name, checkpoint, options.preset, registered)
    tell(name, preset_of(name, checkpoint, options.preset))
    cache: Literal["exact", "none"] = "none" if layout.attention in ("bidirectional", "own") else "exact"
    return ModelSpec(
        name=name,
        vocabulary=vocabulary,
        mask_id=mask_of(checkpoint, tokenizer, options.mask_id, vocabulary),
        context=checkpoint.context,
        stop_ids=stop_ids(checkpoint) | {item for item in layout.stop_ids if item < vocabulary},
        block_length=block_length(checkpoint),
        draft_length=0,
        modes=tuple(modes),
        draft_head=False,
        cache=cache,
        numerics="approximate",
        samplers=modes,
        shifted=layout.shifted,
        holds=layout.attention == "bidirectional",
        ids={
            key: item
            for key, item in checkpoint.config.items()
            if key.endswith("_token_id") and type(item) is int and 0 <= item < vocabulary
        },
        stops=layout.stops,
        sampling=sampling_of(checkpoint, registered.get(modes["diffusion"])),
        eos_id=token_id(checkpoint, "eos_token_id"),
        pad_id=token_id(checkpoint, "pad_token_id"),
        # Reordered text has masks behind what is known, and uniform noise nothing that is known for sure.
        attention=layout.attention if layout.noise == "masked" and layout.attention != "causal, reordered" else "",
    )


def modes_of(
    name: str, checkpoint: Checkpoint, preset: str | None, registered: Mapping[str, Sampler]
) -> dict[str, str]:
    """The sampler behind each mode, the default first; every sampler is a mode of its own name too.

    :param registered: all modes there are, by name.
    :raises OptionError: for a preset that does not fit the family.
    :raises CheckpointError: if it is unclear which sampler the checkpoint was made for.
    """
    layout = checkpoint.layout
    known = presets_of(layout)
    chosen = preset_of(name, checkpoint, preset).sampler
    if chosen is None:
        raise CheckpointError(
            message(
                "{} is of family {!r}, whose config does not tell which sampler it was made for; say {preset}={}",
                checkpoint.folder,
                layout.name,
                " or ".join(map(repr, known)),
            )
        )
    named = [*known, *(item for item in general_samplers(layout, registered) if item not in known)]
    return {"diffusion": chosen} | dict(layout.modes) | {"diffusion": chosen} | {item: item for item in named}


def known_modes(
    name: str, checkpoint: Checkpoint, preset: str | None, registered: Mapping[str, Sampler]
) -> tuple[str, ...]:
    """The same by name; none where it is unclear which sampler the checkpoint was made for.

    :raises OptionError: for a preset that does not fit the family.
    """
    try:
        return tuple(modes_of(name, checkpoint, preset, registered))
    except CheckpointError:
        return ()


def general_samplers(layout: Layout, registered: Mapping[str, Sampler]) -> list[str]:
    """Samplers that fit any checkpoint with this attention and masks."""
    if layout.noise != "masked":
        return []
    found = []
    for name, sampler in registered.items():
        shifted = sampler.attention if sampler.shifted is None else sampler.shifted
        if layout.attention in (shifted if layout.shifted else sampler.attention):
            found.append(name)
    return found


def mask_of(checkpoint: Checkpoint, tokenizer: Any, given: int | None, vocabulary: int) -> int:
    """The id of an open position: as given, of the config, the tokenizer, or the published checkpoints.

    Where noise is uniform no token means "open", and the id is one outside the vocabulary.

    :raises CheckpointError: if nothing says it.
    :raises OptionError: if one is given for a family that has none, or outside the vocabulary.
    """
    layout = checkpoint.layout
    if given is not None and layout.noise != "uniform" and not 0 <= given < vocabulary:
        raise OptionError(
            message("{mask_id}={} is outside 0 to {}; give an id of the vocabulary", given, vocabulary - 1)
        )
    if layout.noise == "uniform":
        if given is not None:
            raise OptionError(
                message("{mask_id}={} has no effect on {}, which has no mask; leave it out", given, layout.name)
            )
        return vocabulary
    found = (
        given,
        checkpoint.config.get("mask_token_id"),
        getattr(tokenizer, "mask_token_id", None),
        layout.mask_id,
    )
    mask_id = next((item for item in found if item is not None), None)
    if not isinstance(mask_id, int) or isinstance(mask_id, bool) or not 0 <= mask_id < vocabulary:
        raise CheckpointError(
            message(
                "{} says mask_token_id={!r}; set it in config.json or say {mask_id}=..., an id below {}",
                checkpoint.folder,
                mask_id,
                vocabulary,
            )
        )
    _check_mask(checkpoint, tokenizer, given, mask_id)
    return mask_id


def _check_mask(checkpoint: Checkpoint, tokenizer: Any, given: int | None, mask_id: int) -> None:
    """Refuse a mask that also means something else, and two that contradict one another.

    What the caller gives comes before what the files say, if it is no other special token.

    :raises OptionError: for one that was given.
    :raises CheckpointError: for one of the files.
    """
    ends = stop_ids(checkpoint) | checkpoint.layout.stop_ids
    begins = {token_id(checkpoint, "bos_token_id"), token_id(checkpoint, "pad_token_id")}
    if mask_id in ends | begins:
        kind = "ends an answer" if mask_id in ends else "begins or fills up a text"
        error = CheckpointError if given is None else OptionError
        raise error(
            f"mask_id={mask_id} of {checkpoint.folder} is also a token that {kind}, so that no position could be told "
            f"to be open; say mask_id=..., the id of a token of its own"
        )
    own = getattr(tokenizer, "mask_token_id", None)
    if given is None and own is not None and own != mask_id:
        raise CheckpointError(
            message(
                "{}: config.json says mask_token_id={}, and the tokenizer's mask token is {}; say "
                "{mask_id}=..., the one it was trained with",
                checkpoint.folder,
                mask_id,
                own,
            )
        )


def sampling_of(checkpoint: Checkpoint, sampler: Sampler | None) -> dict[str, Any]:
    """What generation_config.json says of the options of the family's sampler.

    :raises CheckpointError: for a value that the sampler would refuse at every request.
    """
    found = checkpoint.layout.sampling(checkpoint.generation)
    if found and sampler is not None:
        try:
            sampler.read(SamplingConfig(), found)
        except OptionError as error:
            raise CheckpointError(
                f"{checkpoint.folder / 'generation_config.json'}: {error}; mend it, or download the checkpoint again"
            ) from error
    return found


def block_length(checkpoint: Checkpoint) -> int:
    """Positions denoised together, unless a request says otherwise.

    :raises CheckpointError: for what is no number of positions of its context.
    """
    key = next((key for key in BLOCK_KEYS if checkpoint.config.get(key) is not None), None)
    if key is None:
        return checkpoint.layout.block_length
    return whole(checkpoint.config[key], key, str(checkpoint.folder), 1, min(BLOCK, checkpoint.context))


def token_id(checkpoint: Checkpoint, key: str) -> int | None:
    """The one id, or the first of several, that config.json gives under `key`; None if that is none of the vocabulary.

    Configs say -1 for none, and some name tokens that only their tokenizers have.
    """
    found = checkpoint.config.get(key)
    ids = found if isinstance(found, list) else [] if found is None else [found]
    first = whole(ids[0], key, str(checkpoint.folder), -1, VOCABULARY) if ids else -1
    return first if 0 <= first < checkpoint.vocabulary else None


def stop_ids(checkpoint: Checkpoint) -> frozenset[int]:
    """End-of-text ids of generation_config.json, else of config.json; none if neither has any."""
    text = {**(checkpoint.config.get("text_config") or {}), **checkpoint.config}
    found = checkpoint.generation.get("eos_token_id", text.get("eos_token_id"))
    ids = found if isinstance(found, list) else [] if found is None else [found]
    return frozenset(whole(item, "eos_token_id", str(checkpoint.folder), -1, VOCABULARY) for item in ids)
