"""Chat templates, rendered as transformers renders them, within bounds.

A template comes with a checkpoint and is a program. transformers keeps it in a sandbox of
jinja2's; here that sandbox also counts what a template makes and how often it repeats.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from functools import wraps
from typing import Any

from jinja2 import Template
from jinja2 import TemplateError
from jinja2 import TemplateSyntaxError
from jinja2 import nodes
from jinja2 import pass_context
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from dllm_plugins.errors import RequestError
from dllm_plugins.text.template_budget import ELEMENT
from dllm_plugins.text.template_budget import WRITING
from dllm_plugins.text.template_budget import Budget
from dllm_plugins.text.template_budget import TemplateTooCostlyError
from dllm_plugins.text.template_budget import filter_cost
from dllm_plugins.text.template_budget import method_cost
from dllm_plugins.text.template_budget import operator_cost
from dllm_plugins.text.template_budget import shallow
from dllm_plugins.text.template_language import EXTENSIONS
from dllm_plugins.text.template_language import FILTERS
from dllm_plugins.text.template_language import GLOBALS

#: Characters of a template; the longest of known checkpoints has some thirty thousand.
LARGEST = 1 << 18
_REMEDY = "mend the checkpoint's chat_template, or give token ids of your own"
_budget: ContextVar[Budget] = ContextVar("budget")


@contextmanager
def _spending(characters: int) -> Iterator[None]:
    token = _budget.set(Budget(characters))
    try:
        yield
    finally:
        _budget.reset(token)


@pass_context
def _step(_context: Context, weight: int) -> bool:
    """One more time round: what is written out in a body, at most."""
    _budget.get().spend(ELEMENT + weight)
    return True


@pass_context
def _joined(_context: Context, parts: Sequence[Any]) -> str:
    """The operator `~`."""
    budget = _budget.get()
    budget.spend(budget.text(*parts))
    return "".join(map(str, parts))


@pass_context
def _copied(_context: Context, part: Any) -> Any:
    """A slice."""
    _budget.get().spend(shallow(part))
    return part


def _shown(value: Any) -> Any:
    """What `{{ }}` writes."""
    budget = _budget.get()
    budget.spend(budget.text(value))
    return value


def _filter(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None)


class _Counting(NodeTransformer):
    """Puts a step into each body that may run more than once, and counts what has no hook of its own."""

    def _stepped(self, node: Any) -> Any:
        self.generic_visit(node)
        weight = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        node.body.insert(0, nodes.ExprStmt(_filter(nodes.Const(weight), "_step")))
        if getattr(node, "test", None) is not None:
            node.test = nodes.And(_filter(nodes.Const(0), "_step"), node.test)
        return node

    visit_For = visit_Macro = visit_CallBlock = visit_FilterBlock = visit_AssignBlock = _stepped

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes), "_joined")

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        self.generic_visit(node)
        return _filter(node, "_copied") if isinstance(node.arg, nodes.Slice) else node


class _Bounded(ImmutableSandboxedEnvironment):
    """transformers' environment, in which everything is paid for."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        found: nodes.Template = _Counting().visit(super()._parse(source, name, filename))
        found.set_environment(self)
        return found

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = _budget.get()
        budget.spend(operator_cost(budget, operator, left, right))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        budget = _budget.get()
        args = tuple(map(budget.listed, args))
        method = getattr(obj, "__wrapped__", obj)
        owner = getattr(method, "__self__", None)
        given = [*args, *kwargs.values()]
        budget.spend(method_cost(budget, method.__name__, owner, given) if isinstance(owner, str) else shallow(given))
        found = super().call(context, obj, *args, **kwargs)
        budget.spend(shallow(found))
        return found


def _paid(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that pays before it runs and for what it makes."""
    skipped = int(hasattr(function, "jinja_pass_arg"))

    @wraps(function)
    def paying(*args: Any, **kwargs: Any) -> Any:
        budget = _budget.get()
        own, given = args[:skipped], list(args[skipped:])
        if name in WRITING:
            given = [budget.listed(value) for value in given]
        budget.spend(filter_cost(budget, name, [*given, *kwargs.values()]))
        found = function(*own, *given, **kwargs)
        budget.spend(shallow(found))
        return found

    return paying


@lru_cache(maxsize=1)
def _environment() -> _Bounded:
    found = _Bounded(trim_blocks=True, lstrip_blocks=True, extensions=EXTENSIONS, finalize=_shown)
    found.filters = {name: _paid(name, function) for name, function in (found.filters | FILTERS).items()}
    found.filters |= {"_step": _step, "_joined": _joined, "_copied": _copied}
    found.globals |= GLOBALS
    del found.globals["lipsum"]
    return found


@lru_cache(maxsize=64)
def _compiled(source: str) -> Template:
    with _spending(len(source)):
        return _environment().from_string(source)


def variables_of(source: str) -> list[str]:
    """What a template reads that it does not define itself, sorted; nothing of one that is no template."""
    try:
        return sorted(find_undeclared_variables(_environment().parse(source)))
    except (TemplateError, RecursionError):
        return []


def render(
    source: str,
    messages: Sequence[Mapping[str, Any]],
    variables: Mapping[str, Any],
    name: str,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """A chat as text, up to where the assistant's answer begins.

    :param variables: the special tokens by their names.
    :param name: of the model, for messages.
    :param tools: functions that the model may call, as transformers gives them to templates.
    :raises RequestError: with what the template says to a chat it does not take, and for one that is
        no template, too long, or takes too much time or memory.
    """
    if len(source) > LARGEST:
        raise RequestError(f"the chat template of {name} has {len(source)} characters, more than {LARGEST}; {_REMEDY}")
    characters = sum(len(str(value)) for item in (*messages, *tools) for value in item.values())
    values = {
        "tools": [dict(tool) for tool in tools] or None,
        "documents": None,
        "add_generation_prompt": True,
        **variables,
    }
    try:
        template = _compiled(source)
        with _spending(characters):
            return "".join(template.generate(messages=[dict(message) for message in messages], **values))
    except TemplateTooCostlyError as error:
        raise RequestError(f"the chat template of {name} is not rendered, as {error}; {_REMEDY}") from error
    except TemplateSyntaxError as error:
        raise RequestError(
            f"the chat template of {name} is none: {error.message} in line {error.lineno}; {_REMEDY}"
        ) from error
    except Exception as error:
        if type(error) is not TemplateError:
            raise RequestError(
                f"the chat template of {name} fails for this chat ({type(error).__name__}: {error}); {_REMEDY}"
            ) from error
        # The template's own `raise_exception`.
        roles = ", ".join(str(message.get("role")) for message in messages)
        raise RequestError(
            f"the chat template of {name} refuses this chat ({error}); its roles are: {roles}; change the messages "
            f"as it says, for example put a system prompt into the first question"
        ) from error
