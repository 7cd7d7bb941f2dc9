"""Rules that say whose text a request gets: by its kind, from a file that users may write."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import ValidationError

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.files.cache import config_folder
from dllm_plugins.modes.base import Sampler
from dllm_plugins.options.checked import explain
from dllm_plugins.request import Request
from dllm_plugins.routing import AUTO
from dllm_plugins.routing.contents import Content
from dllm_plugins.template import Gap

#: `gaps`: text behind what is written, a suffix or a template; `edit`: one whose gaps had a text; `constraint`: the
#: answer has to be of a form, tools included; else what it is about.
Kind = Literal["gaps", "edit", "constraint"] | Content
#: Kinds whose text stands between others.
BETWEEN = ("gaps", "edit")
#: What a rule may say in place of a mode.
FIRST, FILLING = "first", "filling"
#: The first mode of a pair's other model; of what is no pair, the first mode.
OTHER = "other"


class RouterRules(BaseModel):
    """The mode whose text requests of each kind get: its name, `first`, `filling` or `other`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    gaps: str = Field(default=FILLING, description="text behind what is written, a suffix or a template")
    edit: str | None = Field(default=None, description="spans that are written anew; as gaps if it is left out")
    constraint: str = Field(default=FIRST, description="a schema, an expression, a grammar or tools")
    open: str = Field(default=FIRST, description="everything else")
    copying: str | None = Field(default=None, description="words of the prompt come back; as open if it is left out")
    code: str | None = Field(default=None, description="code; as open if it is left out")
    arithmetic: str | None = Field(default=None, description="sums; as open if it is left out")
    puzzle: str | None = Field(
        default=None, description="grids, riddles and plans; if it is left out, other for a pair, else as open"
    )

    def told(self, *, pair: bool = False) -> dict[str, str]:
        """The rule of each kind.

        :param pair: for a pair of models, one of which plans: arXiv 2510.15244.
        """
        given: dict[str, str | None] = {**self.model_dump(), **({"puzzle": self.puzzle or OTHER} if pair else {})}
        wider = {kind: self.gaps if kind in BETWEEN else self.open for kind in given}
        return {kind: wider[kind] if rule is None else rule for kind, rule in given.items()}

    def of(self, kind: Kind, *, pair: bool = False) -> str:
        """The rule of one."""
        return self.told(pair=pair)[kind]


class _File(RouterRules):
    models: dict[str, dict[str, str]] = {}


def rules_file() -> Path:
    """Where users write their rules; it need not be there."""
    return config_folder() / "routes.toml"


def rules_of(model: str) -> RouterRules:
    """The rules in force for a model: its own table in the file, then the file's, then `filling` and `first`.

    :raises OptionError: for a file that cannot be read, naming what is wrong in it.
    """
    place = rules_file()
    try:
        found = _File.model_validate(tomllib.loads(place.read_text(encoding="utf-8")))
        own = found.models.get(model, {})
        return RouterRules.model_validate(found.model_dump(exclude={"models"}) | own)
    except FileNotFoundError:
        return RouterRules()
    except ValidationError as error:
        wrong = explain(error, RouterRules.model_fields)
        raise OptionError(f"{place}: {wrong}; mend it, or remove the file") from None
    except (OSError, ValueError) as error:
        raise OptionError(f"{place} cannot be read: {error}; mend it, or remove the file") from None


def kind_of(request: Request, content: Content = "open") -> Kind:
    """The kind of a request: gaps come before what they are held to, and that before what it is about."""
    if request.template or request.suffix:
        return "edit" if any(isinstance(part, Gap) and part.old is not None for part in request.template) else "gaps"
    held = request.config.constraint is not None or request.choosing is not None
    return "constraint" if held else content


def served(modes: Mapping[str, Sampler], spec: ModelSpec) -> dict[str, Sampler]:
    """The modes of a model and what decodes them, its default first.

    :param modes: all that are registered.
    """
    known = {name: modes.get(spec.samplers.get(name, name)) for name in spec.modes}
    return {name: sampler for name, sampler in known.items() if sampler is not None}


def text_mode(kind: Kind, modes: Mapping[str, Sampler], spec: ModelSpec) -> str:
    """The mode whose text a request of this kind gets from a model.

    :raises OptionError: where a rule names a mode that the model has not, or the file of rules is damaged.
    """
    rule = rules_of(spec.name).of(kind, pair=bool(spec.others))
    known = served(modes, spec)
    if rule == OTHER:
        rule = next((name for name in known if name in spec.others), FIRST)
    if rule == FILLING:
        rule = next((name for name, sampler in known.items() if sampler.suffix), FIRST)
    if rule == FIRST:
        return next(iter(known), spec.modes[0])
    if rule not in known:
        raise OptionError(
            f"{rules_file()} says {kind} = {rule!r}, which {spec.name} does not serve; its modes are "
            f"{', '.join(known)}; name one of them under [models.{spec.name!r}], or 'first', 'filling' or 'other'"
        )
    return rule


def standing(mode: str | None, kind: Kind, modes: Mapping[str, Sampler], spec: ModelSpec) -> str | None:
    """A mode that honours the same options: of `auto` the one whose text requests of a kind get, else the mode itself.

    :raises OptionError: as :func:`text_mode`.
    """
    return text_mode(kind, modes, spec) if mode == AUTO else mode
