"""The commands `llm dllm add`, `models` and `remove`."""

import re
from collections.abc import Mapping
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import click
import llm

from dllm_plugins.commands.terminal import clean_errors
from dllm_plugins.default_model import base_model
from dllm_plugins.errors import OptionError
from dllm_plugins.pairs.named import pairs
from dllm_plugins.pairs.named import remove as remove_pair
from dllm_plugins.presets import SHIPPED
from llm_dllm import registry
from llm_dllm.entry import CheckpointFacts
from llm_dllm.loading import DEFAULT
from llm_dllm.named_files import SUFFIX


@click.command()
@click.argument("place", metavar="HUB_ID_OR_FOLDER_OR_FILE")
@click.argument("name", required=False)
@click.option("--name", "named", help="The same as NAME.")
@click.option("--preset", help="The sampler, where the checkpoint does not say for which it was made.")
@click.option("--family", help="The family, of a checkpoint that looks like an ordinary model.")
@click.option("--mask-id", type=int, help="The mask token, where nothing in the checkpoint says it.")
def add(
    place: str, name: str | None, named: str | None, preset: str | None, family: str | None, mask_id: int | None
) -> None:
    """Register a checkpoint, so that `llm -m NAME` uses it.

    The checkpoint is on the hub, in a folder or in a GGUF file. NAME is the last part of its place if
    not given. A hub repository is fetched first.
    Everything but the weights themselves is checked.
    """
    with clean_errors():
        chosen = _name(place, name, named)
        check_free(chosen)
        from dllm_plugins.load_options import LoadOptions
        from llm_dllm.checkpoints import entry_of

        entry = entry_of(place, LoadOptions(preset=preset, family=family, mask_id=mask_id))
        registry.add(chosen, entry)
    click.echo(f"Registered {entry.source} as {chosen}: {_summary(entry.facts)}")
    click.echo(f"Try: llm -m {chosen} 'Why is the sky blue?' -o max_tokens 64")


def _name(place: str, name: str | None, named: str | None) -> str:
    """What llm shall call it.

    :raises OptionError: if it is said twice, and differently.
    """
    if name is not None and named not in (None, name):
        raise OptionError(f"the name is given twice, as {name!r} and as --name {named!r}; leave one out")
    given = name or named
    if given is not None:
        return given
    last = place.rstrip("/").rpartition("/")[2]
    return last[: -len(SUFFIX)] if last.lower().endswith(SUFFIX) else last


def check_free(name: str) -> None:
    """Refuse a name that cannot be asked for, or means something else already.

    :raises OptionError: naming it and the remedy.
    """
    if not re.fullmatch(r"[^\s-]\S*", name) or name in (".", "..", "~"):
        raise OptionError(f"{name!r} cannot be a model's name; give one without spaces as --name NAME")
    # A damaged file registers nothing, so that its names would look free.
    registry.entries()
    taken = {**llm.get_async_model_aliases(), **llm.get_model_aliases()}
    if name in taken:
        raise OptionError(f"the name {name!r} is taken by {taken[name]}; give another one as --name NAME")


@click.command()
def models() -> None:
    """List the models that there are: registered ones, too."""
    with clean_errors():
        _show(f"{DEFAULT.model_id} (default)", _default_lines())
        for name, entry in sorted(registry.entries().items()):
            facts = entry.facts
            _show(
                name,
                {
                    "place": entry.source if entry.source == entry.folder else f"{entry.source}, in {entry.folder}",
                    "family": facts.family,
                    "size": _size(facts.parameters, facts.size),
                    "licence": facts.licence,
                    "attention": facts.attention,
                    "cache": facts.cache,
                    "sampler": facts.why(),
                },
            )
        for name, pair in sorted(pairs().items()):
            _show(f"{name} (pair)", {"verifies": pair.ar, "drafts": pair.diffusion})
        for name, summary in SHIPPED.items():
            _show(f"{name} (comes with this package)", {"answers": summary})


def _show(title: str, lines: Mapping[str, Any]) -> None:
    click.echo(title)
    for name, value in lines.items():
        click.echo(f"  {name:9}  {value}")


def _default_lines() -> dict[str, str]:
    """The default model under the names that checkpoints have."""
    from dllm_plugins.default_model.load import MODES

    chosen = DEFAULT.load_options()
    base = Path(chosen.get("base") or base_model.place())
    if "base" in chosen:
        missing = "not known: its base is fetched at the first prompt"
        ready = base.is_dir()
    else:
        missing, ready = f"missing: run `{base_model.SETUP}`", base_model.is_ready()
    return {
        "place": str(chosen.get("base") or base),
        "family": "smollm2-tri-mode",
        "size": _size(*_weighed(base, chosen.get("denoiser"))) if ready else missing,
        "licence": "apache-2.0",
        "attention": "causal; open positions see the whole canvas",
        "cache": "exact",
        "sampler": ", ".join(MODES),
    }


def _weighed(base: Path, denoiser: str | None) -> tuple[int, int]:
    """How many parameters base and denoiser hold, and in how many bytes."""
    from dllm_plugins.default_model.load import shipped_denoiser
    from dllm_plugins.default_model.stored import read_stored
    from llm_dllm.checkpoints import weigh

    own = Path(denoiser or shipped_denoiser())
    if base.is_dir():
        return weigh([*base.glob("*.safetensors"), own])
    parameters, size = weigh([own])
    stored = read_stored(base).tensors.values()
    return parameters + sum(prod(weight.shape) for weight in stored), size + base.stat().st_size


def _summary(facts: CheckpointFacts) -> str:
    return f"{facts.family}, {_size(facts.parameters, facts.size)}, sampler {facts.sampler}"


def _size(parameters: int, size: int) -> str:
    counted = _short(parameters, ("", "K", "M", "B", "T"))
    return f"{counted.rstrip()} parameters, {_short(size, ('B', 'kB', 'MB', 'GB', 'TB'))} on disk"


def _short(number: float, units: Sequence[str]) -> str:
    """A number with its unit, such as 134.5 M."""
    power = 0
    while number >= 1000 and power < len(units) - 1:
        number, power = number / 1000, power + 1
    return f"{number:.4g} {units[power]}"


@click.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget a registered checkpoint or pair; files stay where they are."""
    with clean_errors():
        if remove_pair(name) is not None:
            click.echo(f"{name} is no longer registered; its two models stay as they are")
            return
        entry = registry.remove(name)
    click.echo(f"{name} is no longer registered; its files are still there: {entry.folder}")
