"""The command `llm dllm rules`."""

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import click

from dllm_plugins.commands.terminal import clean_errors
from dllm_plugins.config import SamplingConfig

_KINDS = {
    "rules": "Commit rules, which say what a pass commits: -o rule NAME",
    "revocations": "Revocation rules, which take tokens back: -o revoke NAME",
    "samplers": "Samplers of checkpoints: -o mode NAME, of those that a checkpoint has",
}


@click.command()
@click.argument("name", required=False)
def rules(name: str | None) -> None:
    """List commit rules, revocation rules and samplers.

    With their parameters and sources; with NAME only the one of that name.
    """
    with clean_errors():
        found = _registered()
    known = {one for those in found.values() for one in those}
    if name is not None and name not in known:
        raise click.ClickException(f"no rule and no sampler is called {name!r}; there are: {', '.join(sorted(known))}")
    parts = []
    for kind, those in found.items():
        lines = [line for one, about in sorted(those.items()) if name in (None, one) for line in [f"  {one}", *about]]
        if lines:
            parts.append("\n".join([_KINDS[kind], *lines]))
    click.echo("\n\n".join(parts))


def _registered() -> Mapping[str, Mapping[str, list[str]]]:
    """What there is, by kind and name: the lines that are said of it."""
    from dllm_plugins import plugins

    return {
        "rules": {
            name: [
                f"    {rule.summary}",
                *_shared(rule.options),
                *_own("rule_options", getattr(rule, "settings", None)),
            ]
            for name, rule in plugins.rules().items()
        },
        "revocations": {
            name: [f"    {rule.summary}", *_own("revoke_options", rule.settings)]
            for name, rule in plugins.revocations().items()
        },
        "samplers": {
            sampler.name: [
                f"    {sampler.summary}",
                f"    source: {sampler.source}",
                *_shared(frozenset(sampler.settings.model_fields) & frozenset(SamplingConfig.model_fields)),
                *_own("preset_options", sampler.settings),
            ]
            for sampler in plugins.modes().values()
        },
    }


def _shared(options: frozenset[str]) -> Iterator[str]:
    """The options of the engine that it takes."""
    if options:
        yield f"    options: {', '.join(sorted(options))}"


def _own(option: str, settings: Any) -> Iterator[str]:
    """Its own parameters, and the option they are given in."""
    fields = {} if settings is None else settings.model_fields
    # A sampler's settings also name the engine's options; a rule's are all its own.
    shared = SamplingConfig.model_fields if option == "preset_options" else ()
    fields = {name: field for name, field in fields.items() if name not in shared}
    if fields:
        yield f"    {option}:"
    for name, field in fields.items():
        default = "" if field.is_required() or field.default in (None, ()) else f"={field.default}"
        yield f"      {name}{default}: {field.description}"
