"""The command `info` of `python -m dllm_plugins`, and what `llm dllm info` says likewise."""

from collections.abc import Iterable
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
from typing import Any

import click

from dllm_plugins import plugins
from dllm_plugins.commands.terminal import clean_errors
from dllm_plugins.commands.terminal import show
from dllm_plugins.default_model import base_model
from dllm_plugins.errors import DownloadError
from dllm_plugins.errors import MissingExtraError
from dllm_plugins.errors import OptionError
from dllm_plugins.files.cache import cache_folder
from dllm_plugins.libraries.extras import has

DEFAULT = "dllm"
#: Hosts that an extra of the same name brings, and their library.
HOSTS = {"langchain": "langchain_core", "llm": "llm"}


@click.command()
@click.argument("model", default=DEFAULT)
@click.option("--route", "prompt", help="Say which mode `auto` would choose for this prompt, and why; loads the model.")
@click.option("-o", "--option", "given", type=(str, str), multiple=True, help="With --route: NAME VALUE, as for batch.")
@click.option("--rows", type=click.IntRange(1), default=1, help="With --route: requests that share the passes.")
def info(model: str, prompt: str | None, given: tuple[tuple[str, str], ...], rows: int) -> None:
    """Show what would be loaded for MODEL, what computes it and why.

    MODEL is a name, a folder, a hub id or a GGUF file; the default model if it is left out. Weights are not read, but
    with --route.
    """
    with clean_errors():
        if prompt is not None:
            click.echo(_route(model, prompt, given, rows))
            return
        if given or rows != 1:
            raise OptionError("--option and --rows are about a prompt; give it with --route")
        show(about(model, {}))


def _route(name: str, prompt: str, given: Iterable[tuple[str, str]], rows: int) -> str:
    """What mode `auto` would choose, in one line."""
    from dllm_plugins.commands.batch import config_of
    from dllm_plugins.models import load_model
    from dllm_plugins.routing import AUTO

    config = config_of(given)
    if config.mode not in (None, AUTO):
        return f"{config.mode}, as asked for"
    model, config = load_model(name), config.model_copy(update={"mode": AUTO})
    if model.chats:
        request = model.chat_request([{"role": "user", "content": prompt}], config)
    else:
        request = model.text_request(prompt, config)
    return str(model.engine().router.explain(request, rows))


def about(model: str, options: Mapping[str, Any]) -> dict[str, str]:
    """What `load_model(model, **options)` would do, line by line; no weights are read.

    :raises DllmError: for a model that is unknown or damaged.
    """
    lines = _default_lines(options) if model == DEFAULT else {"place": model}
    cache = {"cache": f"{cache_folder()} (DLLM_CACHE)"}
    costs = _costs() if model == DEFAULT else {}
    return _versions() | lines | _backend_lines(model, dict(options)) | costs | cache


def _costs() -> dict[str, str]:
    """What passes cost here, as far as it was measured."""
    from dllm_plugins.drafting.kept import kept

    found = [f"{name}: {costs}" for name, costs in kept().items()]
    return {"costs": "; ".join(found) or "of passes not measured yet; `costs --measure` does, or the first answer"}


def _host(name: str, module: str) -> str:
    """A host and what serves it, or how to install it."""
    absent = name in HOSTS and not has(HOSTS[name])
    return f"{name} (not installed: pip install 'dllm-plugins[{name}]')" if absent else f"{name} ({module})"


def _versions() -> dict[str, str]:
    """What is installed of ourselves and of what computes and calls us, and the hosts there are adapters for."""
    found = []
    for name in ("dllm-plugins", "torch", "transformers", "llm", "langchain-core"):
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    hosts = ", ".join(_host(name, adapter.module) for name, adapter in sorted(plugins.adapters().items()))
    return {"installed": ", ".join(found), "hosts": hosts}


def _default_lines(options: Mapping[str, Any]) -> dict[str, str]:
    """Weights and device of the default model."""
    from dllm_plugins.default_model.load import shipped_denoiser
    from dllm_plugins.denoisers.placement import best_device
    from dllm_plugins.denoisers.placement import choose_dtype

    device = best_device(options.get("device", "auto"))
    dtype = choose_dtype(options.get("dtype", "auto"), device)
    ready = "ready" if base_model.is_ready() else f"missing: run `{base_model.SETUP}`"
    return {
        "base": str(options.get("base") or f"{base_model.place()} ({ready})"),
        "denoiser": str(options.get("denoiser") or shipped_denoiser()),
        "device": f"{device}, {str(dtype).removeprefix('torch.')}",
    }


def _backend_lines(model: str, options: dict[str, Any]) -> dict[str, str]:
    """What computes a model, what would be faster, whether GGUF files can be read, and what it can be asked for."""
    from dllm_kernels.compiled import library
    from dllm_plugins.models import Chosen
    from dllm_plugins.models import auto_backend

    asked = options.pop("backend", "auto")
    try:
        chosen = auto_backend(model, **options)
    except DownloadError:
        missing = library.why_not()
        faster = () if missing is None else (f"the compiled kernel library, which {missing}",)
        chosen = Chosen("auto", "not known before the base model is there", faster)
    backend, reason = (chosen.backend, chosen.reason) if asked == "auto" else (asked, "as asked for")
    lines = {"backend": f"{backend}: {reason}"}
    if backend in ("auto", "kernels"):
        lines["faster"] = "; ".join(chosen.faster) or "nothing: these kernels are the fastest for this machine"
    lines["llama.cpp"] = _llama_cpp()
    if chosen.sampler:
        lines["sampler"] = chosen.sampler
    if chosen.modes:
        lines["modes"] = ", ".join(chosen.modes)
    return lines


def _llama_cpp() -> str:
    """The version of llama.cpp's package, or how to install one."""
    try:
        from dllm_plugins.llama_cpp.load import installed
    except MissingExtraError:
        return "not installed: pip install 'dllm-plugins[gguf]'"
    return installed()
