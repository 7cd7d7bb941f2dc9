"""A model by its name and its options: a running server's if there is one that fits, else loaded here."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

from dllm_plugins.errors import DllmError
from dllm_plugins.libraries.collecting import uncollected
from dllm_plugins.warm.place import wanted

if TYPE_CHECKING:
    from dllm_plugins.sharing import SharedModel
    from dllm_plugins.warm.model import WarmShared

#: What hosts are given, and use by the same names.
Answering: TypeAlias = "SharedModel | WarmShared"


def open_model(name: str, options: dict[str, Any], load: "Callable[[], SharedModel] | None" = None) -> Answering:
    """The model, as `DLLM_SERVER` says: "auto" for a server that fits if there is one, a path for that server alone.

    :param options: see :func:`~dllm_plugins.models.load_model`.
    :param load: loads it here, if not :func:`~dllm_plugins.sharing.shared_model`.
    :raises ServerError: if the server of a path does not answer, or does not fit.
    :raises DllmError: for what cannot be loaded.
    """

    def here() -> "SharedModel":
        with uncollected():
            from dllm_plugins.sharing import shared_model

            return shared_model(name, **options)

    place, must = wanted()
    if place is None:
        return (load or here)()
    from dllm_plugins.warm.link import Link
    from dllm_plugins.warm.link import NotServedError
    from dllm_plugins.warm.model import WarmModel
    from dllm_plugins.warm.model import WarmShared

    link = Link(place, name, _sendable(options), None if must else load or here)
    try:
        model = link.ask("open", partial(WarmModel, link))
    except NotServedError as error:
        return link.fall_back(error)
    except DllmError:
        if must:
            raise
        # If it cannot be loaded here either, that says why.
        return (load or here)()
    return WarmShared(link, model)


def answers(name: str, options: dict[str, Any]) -> str:
    """Who would answer, in words, and why; no model is loaded anywhere."""
    place, must = wanted()
    if place is None:
        return "this process (DLLM_SERVER=auto has a server of yours answer)"
    from dllm_plugins.warm.link import Link
    from dllm_plugins.warm.link import NotServedError

    try:
        for _ in Link(place, name, _sendable(options), None).lines("look", dict):
            pass
    except (NotServedError, DllmError) as error:
        return f"{'nobody' if must else 'this process'}; the server at {place} does not: {error}"
    return f"the server at {place}"


def _sendable(options: dict[str, Any]) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
