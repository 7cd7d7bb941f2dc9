"""Named models: from a name or a place to something the engine can run."""

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from dataclasses import fields
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from dllm_plugins import plugins
from dllm_plugins.config import SamplingConfig
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import completed
from dllm_plugins.edits import Edit
from dllm_plugins.edits import EditedText
from dllm_plugins.engine import Engine
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import PluginError
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.libraries.collecting import uncollected
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.messages import shown
from dllm_plugins.modes.base import Sampler
from dllm_plugins.options.unknown import unknown_option
from dllm_plugins.request import Request
from dllm_plugins.speaker import Speaker
from dllm_plugins.template import FilledText
from dllm_plugins.template import Gap
from dllm_plugins.template import Growing
from dllm_plugins.template import Template
from dllm_plugins.text.seams import parts_of

if TYPE_CHECKING:
    from dllm_plugins.families.layout import Layout


@dataclass(frozen=True, slots=True)
class Model(Speaker):
    """A loaded model: its denoiser, its tokenizer, and an engine on demand."""

    def engine(self, prefixes: KeptPrefixes | None = None) -> Engine:
        """A new engine with all registered modes.

        :param prefixes: where finished rows leave their prefix for the next turn.
        """
        return Engine(self.denoiser, self.tokenizer, plugins.modes(), prefixes)

    def close(self) -> None:
        """Give back at once what its backend holds outside Python (llama.cpp); it cannot decode any more then.

        Nothing happens where there is nothing of that kind, and the second time.
        """
        completed(self.denoiser).close()

    def fill_request(self, template: Template, **options: Any) -> Request:
        """The request that fills a template; :meth:`FilledText.of` reads what the engine makes of it.

        Fixed texts are tokenised one by one, each as it reads inside the whole text; control tokens that they spell
        become ordinary text. Where nothing stands before the first gap, a token does that begins texts.

        :param options: of :class:`~dllm_plugins.config.SamplingConfig`.
        :raises OptionError: for an option that is unknown or out of range.
        :raises RequestError: for texts or messages that cannot be tokenised.
        """
        config = SamplingConfig(**options)
        # What fills a gap is no thought.
        tokens = self.encode_chat(template.chat, (), self.thinking_habit().off) if template.chat else []
        parts = parts_of(self.tokenizer, template, self.encode_text, exact=config.constraint is not None)
        names = (getattr(self.tokenizer, f"{name}_token_id", None) for name in ("bos", "eos"))
        starts = [name for name in (*names, self.denoiser.spec.eos_id) if name is not None]
        if not tokens and isinstance(parts[0], Gap):
            tokens = starts[:1]
        return Request(tokens, config, template=parts)

    def fill(self, template: Template, *, told: Callable[[Event], object] | None = None, **options: Any) -> FilledText:
        """Fill the gaps of a template, in the model's first mode that can if none is named.

        :param told: is called with every event, such as the `take` of a :class:`~dllm_plugins.traces.Recorder`.
        :raises OptionError: for a mode that sees nothing behind what it writes, naming those that do.
        :raises RequestError: for a template that cannot be tokenised, or is longer than the model's context.
        """
        *_, found = self.fill_stream(template, told=told, **options)
        assert isinstance(found, FilledText), "it comes last"
        return found

    def edit_request(self, edit: Edit, **options: Any) -> Request:
        """The request that writes spans of a text anew; :meth:`EditedText.of` reads what the engine makes of it.

        :param options: see :meth:`fill_request`, which also says what is raised.
        """
        return self.fill_request(edit.template, **options)

    def edit(self, edit: Edit, **options: Any) -> EditedText:
        """Write spans of a text anew, in the model's first mode that fills gaps if none is named.

        :raises DllmError: for what :meth:`fill` refuses.
        """
        [finish] = self.engine().generate([self.edit_request(edit, **options)])
        return EditedText.of(edit, finish)

    def fill_stream(
        self, template: Template, *, told: Callable[[Event], object] | None = None, **options: Any
    ) -> Generator[str | FilledText, None, None]:
        """The whole text piece by piece, from its beginning, as it becomes final; then all that :meth:`fill` returns.

        Closing the iterator ends the work.

        :param told: see :meth:`fill`.
        """
        growing = Growing(template)
        with closing(self.engine().stream(self.fill_request(template, **options))) as events:
            for event in events:
                if told is not None:
                    told(event)
                new = growing.of(event)
                if new:
                    yield new
                if isinstance(event, Finish):
                    yield FilledText.of(template, event)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The backend that `auto` is for a model, and the reason.

    :param faster: what would compute it faster, and why it cannot here.
    :param modes: what the model can serve, its default first; empty if that is not known before it is loaded.
    :param sampler: what decodes in mode `diffusion`, and what says so; empty where there is no choice.
    """

    backend: str
    reason: str
    faster: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    sampler: str = ""


@dataclass(frozen=True, slots=True)
class Preset:
    """A model users ask for by name.

    :param auto: which backend `auto` is, told without loading weights; None if it does not choose.
    """

    name: str
    summary: str
    load: Callable[[LoadOptions], Model]
    auto: Callable[[LoadOptions], Chosen] | None = None


@dataclass(frozen=True, slots=True)
class Backend:
    """Builds a denoiser from a family's parts."""

    name: str
    summary: str
    build: Callable[..., Denoiser]


@dataclass(frozen=True, slots=True)
class Adapter:
    """A host and the module that serves it."""

    name: str
    module: str
    summary: str


@dataclass(frozen=True, slots=True)
class Registered:
    """What plug-ins registered, by name, as far as a loader of checkpoints must know it.

    :param families: whose checkpoints are read.
    :param modes: which of them a checkpoint can serve is found when it is opened.
    """

    families: Mapping[str, "Layout"]
    modes: Mapping[str, Sampler]


def registered() -> Registered:
    """What the plug-in manager has; handed down to the loaders, which do not know it."""
    return Registered(plugins.families(), plugins.modes())


def registered_family(name: str) -> "Layout":
    """A registered family by its name, which is all that copies and pickles keep of one.

    :raises PluginError: if there is none of that name, such as where its plug-in is not installed.
    """
    return plugins.find("family", name, plugins.families())


def load_model(name: str = "dllm", **options: Any) -> Model:
    """Load a registered model or pair, or a checkpoint by its folder or hub id.

    :param name: a name such as `dllm`, a folder in the hub's format, OWNER/NAME, or a GGUF file. Beside `pair`, what
        the pair is called.
    :param options: the fields of :class:`LoadOptions`.
    :raises PluginError: for an unknown name.
    :raises OptionError: for an unknown option.
    :raises CheckpointError: if its weights are missing or damaged.
    """
    with uncollected():
        given = load_options(options)
        return _found(name, given).load(given)


def auto_backend(name: str = "dllm", **options: Any) -> Chosen:
    """Which backend `load_model(name, backend="auto", **options)` computes with, and why; and what it serves.

    Nothing is loaded but the small files of a checkpoint.

    :raises PluginError: for an unknown name.
    :raises OptionError: for an unknown option.
    :raises CheckpointError: if its small files are missing or damaged.
    """
    given = load_options(options)
    found = _found(name, given)
    if found.auto is None:
        return Chosen("its own", "the plug-in that registered this model leaves no choice")
    return found.auto(given)


def is_gguf(name: str | Path) -> bool:
    """Whether a name is that of a GGUF file, which llama.cpp computes."""
    return str(name).lower().endswith(".gguf")


def load_options(given: dict[str, Any]) -> LoadOptions:
    """Arguments of :func:`load_model`.

    :raises OptionError: for an unknown one, or a value of another kind.
    """
    known = {field.name for field in fields(LoadOptions)}
    for option in given.keys() - known:
        raise OptionError(unknown_option(option, given[option], known, " of load_model"))
    return LoadOptions(**given)


def _found(name: str, options: LoadOptions) -> Preset:
    """What loads a model: a pair, the registered one of that name, else the loader of files, folders and hub ids."""
    if not isinstance(name, str | Path) or "\0" in str(name):
        raise PluginError(f"model {shown(name)}: give a name, a folder, a hub id or a GGUF file, as a text")
    name, presets = str(name), plugins.presets()
    is_place = name not in presets and (is_gguf(name) or "/" in name or Path(name).is_dir())
    pair = _pair_of(name, presets, options, is_place=is_place)
    if pair is not None:
        return pair
    if not is_place:
        return plugins.find("model", name, presets)
    loader = import_module(f"dllm_plugins.{'llama_cpp.load' if is_gguf(name) else 'families.hub'}")
    known = registered()
    load, auto = partial(loader.load, name, registered=known), partial(loader.auto, name, registered=known)
    return Preset(name, "a checkpoint", load, auto)


def _pair_of(name: str, presets: Mapping[str, Preset], options: LoadOptions, *, is_place: bool) -> Preset | None:
    """What loads a pair, given or registered under this name; None if it is something else's."""
    named = import_module("dllm_plugins.pairs.named")
    if options.pair is not None:
        pair = named.Pair.of(options.pair)
        name = f"{pair.ar} with drafts of {pair.diffusion}" if name in presets else name
    elif is_place or name in presets or (pair := named.pairs().get(name)) is None:
        return None
    loader = import_module("dllm_plugins.pairs.load")
    load, auto = partial(loader.load, name, pair), partial(loader.auto, pair)
    return Preset(name, f"{pair.ar} with drafts of {pair.diffusion}", load, auto)
