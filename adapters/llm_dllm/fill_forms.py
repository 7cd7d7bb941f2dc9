"""What `llm dllm fill` is told that gaps, or the whole text, must be."""

from collections.abc import Callable
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING
from typing import Any

import click

from dllm_plugins.constraints.values import Constraint
from dllm_plugins.constraints.values import Grammar
from dllm_plugins.constraints.values import JsonSchema
from dllm_plugins.constraints.values import Regex
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.template import Gap
from dllm_plugins.template import Template
from llm_dllm.schemas import schema_of

if TYPE_CHECKING:
    from dllm_plugins.config import SamplingConfig

KINDS = ("regex", "grammar", "schema")
_MEANINGS = {
    "regex": "A regular expression that each gap must match.",
    "grammar": "A grammar in Lark's notation that each gap must be a sentence of.",
    "schema": "A JSON schema that each gap must be a value of, in any form that llm's --schema takes.",
}


def form_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options by which a command is told."""
    own = click.option(
        "--for",
        "own",
        type=(int, click.Choice(KINDS), str),
        multiple=True,
        metavar="N KIND FORM",
        help="What gap N must be, in place of that: --for 2 regex '[0-9]{4}'. KIND is regex, grammar or schema.",
    )
    whole = click.option("--whole", is_flag=True, help="They are about the whole text, not about each gap.")
    command = own(whole(command))
    for kind in reversed(KINDS):
        command = click.option(f"--{kind}", help=_MEANINGS[kind])(command)
    return command


def constraint_of(kind: str, form: str) -> Constraint:
    """A form as a constraint."""
    schema = schema_of(form, None) if kind == "schema" else None
    if schema is not None:
        return JsonSchema(schema)
    return Regex(form) if kind == "regex" else Grammar(form)


def told(
    template: Template,
    config: "SamplingConfig",
    forms: dict[str, str | None],
    own: Iterable[tuple[int, str, str]],
    *,
    whole: bool,
) -> tuple[Template, dict[str, Constraint]]:
    """The template with what its gaps must be, and the option that says what all of its text must be, if it is said.

    :param forms: of every gap, by their kinds.
    :param own: of some gaps: the number, the kind and the form.
    :param whole: `forms` are about the whole text.
    :raises OptionError: for forms that contradict one another.
    :raises RequestError: for a gap that there is not.
    """
    if config.constraint is not None:
        kind = "regex" if isinstance(config.constraint, Regex) else "grammar"
        raise OptionError(f"-o {kind} is about an answer; use --{kind} for each gap, or --{kind} with --whole for all")
    said = {kind: form for kind, form in forms.items() if form is not None}
    if len(said) > 1:
        names = " and ".join(f"--{kind}" for kind in said)
        raise OptionError(f"{names} all say what each gap must be; give one of them, and --for for single gaps")
    common = [constraint_of(kind, form) for kind, form in said.items()]
    if whole and not common:
        raise OptionError("--whole needs a form that the text must be; give --regex, --grammar or --schema")
    given = {"constraint": common.pop()} if whole else {}
    gaps = [replace(gap, constraint=common[0] if common else None) for gap in template.gaps]
    for number, kind, form in own:
        if not 1 <= number <= len(gaps):
            raise RequestError(f"--for {number}: the text has {len(gaps)} gaps; give a number from 1 to {len(gaps)}")
        gaps[number - 1] = replace(gaps[number - 1], constraint=constraint_of(kind, form))
    rest = iter(gaps)
    parts = [next(rest) if isinstance(part, Gap) else part for part in template.parts]
    return Template(*parts, chat=template.chat), given
