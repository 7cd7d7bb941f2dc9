"""Chat templates: rendered as transformers renders them, and within bounds."""

import json
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers.utils import chat_template_utils
from transformers.utils.chat_template_utils import render_jinja_template

from dllm_plugins.errors import RequestError
from dllm_plugins.families.layouts import LAYOUTS
from dllm_plugins.text.template_budget import UNITS
from dllm_plugins.text.template_language import EXTENSIONS
from dllm_plugins.text.template_language import FILTERS
from dllm_plugins.text.template_language import GLOBALS
from dllm_plugins.text.templates import LARGEST
from dllm_plugins.text.templates import render

CHAT = [
    {"role": "system", "content": "Be *brief*; 100% {sure}."},
    {"role": "user", "content": "  What is 2+2?\n"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\n4"},
    {"role": "user", "content": "Sure? \u00e9\u0301 日本語"},
]
#: What templates of checkpoints do, in one: macros, namespaces, slices, filters, methods, blocks, loop controls.
BUSY = """\
{%- macro turn(m) -%}{{ '<|' ~ m.role ~ '|>' }}{{ m['content'].strip().split('</think>')[-1] | trim }}{%- endmacro -%}
{%- set ns = namespace(last=-1, text='') -%}
{%- for m in messages[::-1] -%}
  {%- if m.role == 'system' -%}{% continue %}{%- endif -%}
  {%- set ns.last = (messages | length - 1) - loop.index0 -%}
{%- endfor -%}
{%- for m in messages if m.content -%}
  {%- set part -%}{{ turn(m) }}{{ loop.index }}{%- endset -%}
  {%- set ns.text = ns.text + part + '%s-%02d' % (m.role, loop.index) + '{:>6}'.format(m.role[:3]) -%}
  {%- generation -%}{{ part.replace('s', 'ss') * 2 }}{%- endgeneration -%}
{%- endfor -%}
{{ ns.text }}{{ messages | map(attribute='role') | join(', ') }}{{ messages | tojson(indent=2) }}{{ 7 * 6 + 2 ** 3 }}
{%- if add_generation_prompt %}{{ bos_token }}{{ 'assistant' | upper | indent(2) | replace('A', 'a') }}{% endif %}
"""


def theirs(source: str, chat: list[dict[str, str]]) -> str:
    """What transformers makes of it."""
    texts: Any = render_jinja_template([chat], chat_template=source, add_generation_prompt=True, bos_token="<s>")
    return str(texts[0][0])


@pytest.mark.parametrize("name", sorted(name for name, layout in LAYOUTS.items() if layout.chat_template))
def test_templates_of_families(name: str) -> None:
    """The very text that transformers renders."""
    source = str(LAYOUTS[name].chat_template)
    assert render(source, CHAT, {"bos_token": "<s>"}, name) == theirs(source, CHAT)


@pytest.mark.parametrize("count", [1, 50])
def test_a_busy_template(count: int) -> None:
    """Long chats, too."""
    chat = CHAT * count
    assert render(BUSY, chat, {"bos_token": "<s>"}, "m") == theirs(BUSY, chat)


def environment() -> ImmutableSandboxedEnvironment:
    """transformers' own, which it promises nobody."""
    found: ImmutableSandboxedEnvironment = chat_template_utils._compile_jinja_template("").environment
    return found


def test_the_language_is_that_of_transformers() -> None:
    """What a new version adds to jinja's filters, functions and tags, or takes away, is missing here."""
    theirs, plain = environment(), ImmutableSandboxedEnvironment()
    for ours, what in ((FILTERS, "filters"), (GLOBALS, "globals")):
        table, known = getattr(theirs, what), getattr(plain, what)
        assert ours.keys() == {name for name, found in table.items() if known.get(name) is not found}
        assert known.keys() <= table.keys()
    assert {tag for kind in EXTENSIONS for tag in kind.tags} == {
        tag for kind in theirs.extensions.values() for tag in kind.tags
    }
    assert theirs.tests.keys() == plain.tests.keys()
    assert theirs.trim_blocks and theirs.lstrip_blocks and not theirs.keep_trailing_newline


@pytest.mark.parametrize(
    "source",
    [
        "{{ namespace(_a=1) }}",
        "{{ namespace({'_a': 1}) }}",
        "{% set n = namespace() %}{% set n._a = 1 %}",
        "{{ dict.__class__ }}",
        "{{ dict.mro() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('no') }}",
    ],
)
def test_what_is_forbidden_there_is_forbidden_here(source: str) -> None:
    """The sandbox, and what transformers put around it; the end of each error is jinja's own or ours."""
    template = environment().from_string(source)
    try:
        allowed = template.render(messages=[])
    except TemplateError:
        with pytest.raises(RequestError):
            render(source, [], {}, "m")
    else:
        assert render(source, [], {}, "m") == allowed


@pytest.mark.parametrize(
    "source",
    [
        "{{ dict(a=1, b='<é>') | tojson }}{{ dict([('self', 2)]) | tojson(indent=1, sort_keys=true) }}",
        "{{ dict.fromkeys('ab', 3) | tojson(ensure_ascii=true, separators=(',', ':')) }}",
        "{% set n = namespace(self=1, other='x') %}{% set n.more = 5 %}{{ n.self }}{{ n.other }}{{ n.more }}",
        "{% generation %}a{% set b = 2 %}{{ b }}{% endgeneration %}{{ b }}",
        "{% for m in [1, 2, 3] %}{% if m == 2 %}{% continue %}{% endif %}{{ m }}{% if m == 3 %}{% break %}{% endif %}"
        "{% endfor %}{{ strftime_now('%Y')|length }}",
        "{{ joiner(', ')() }}{{ cycler(1, 2).next() }}{{ range(3) | list }}\n",
    ],
)
def test_its_functions_do_the_same(source: str) -> None:
    """Every one of them, with the arguments they take."""
    assert render(source, CHAT, {"bos_token": "<s>"}, "m") == theirs(source, CHAT)


def test_template_of_the_default_model(tiny_folder: Path) -> None:
    """The template of a folder."""
    source = json.loads((tiny_folder / "tokenizer_config.json").read_text()).get("chat_template")
    source = source or (tiny_folder / "chat_template.jinja").read_text()
    assert render(source, CHAT, {"bos_token": "<s>"}, "m") == theirs(source, CHAT)


_GROWING = "{% set n = namespace(x='aaaa') %}{% for i in range(60) %}{% set n.x = %s %}{% endfor %}{{ n.x }}"


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
        "{% for i in range(9999) %}{% for j in range(9999) if false %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{{ [0] * 10**9 }}",
        "{{ 'a'.center(10**9) }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ 'a' | indent(10**9) }}",
        "{{ [1] | batch(10**9, 'x') | list }}",
        "{{ [1] | slice(10**9) | list }}",
        "{{ 1.5 | round(10**9, 'ceil') }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (10**9, 1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{w}}'.format(1, w=10**9) }}",
        "{{ ('\t' * 9999).expandtabs(99999) }}",
        "{{ 'a'.join(range(9999) | map('string') | map('center', 99999)) }}",
        "{{ ([['a'] * 9999] * 9999) | sum(start=[]) | length }}",
        _GROWING.replace("%s", "n.x ~ n.x"),
        _GROWING.replace("%s", "n.x + n.x"),
        _GROWING.replace("%s", "[n.x, n.x]"),
        _GROWING.replace("%s", "n.x.replace('a', n.x)"),
        _GROWING.replace("%s", "[n.x, n.x] | join"),
        "{% set n = namespace(x='aaaa') %}{% for i in range(60) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}"
        "{% set n.x = y %}{% endfor %}",
        "{% for i in range(99999) %}" + "literal" * 1000 + "{% endfor %}",
        "{% set n = namespace(x='b' * 1000000) %}{% for i in range(9999) %}{% set n.l = [n.l, n.x[1:]] %}{% endfor %}",
        "{{ lipsum(n=1000000) }}",
        "{{ range(10**9) }}",
        "a" * (LARGEST + 1),
        "{{ " + "(" * 3000 + ")" * 3000 + " }}",
    ],
)
def test_a_template_that_would_not_end(source: str) -> None:
    """Refused, whatever it repeats, multiplies or nests; the same with a chat of any length."""
    with pytest.raises(RequestError, match=r"the chat template of m .*give token ids"):
        render(source, CHAT, {}, "m")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ raise_exception('System role not supported') }}", "refuses this chat .System role not supported"),
        ("{{ nothing.at.all }}", "UndefinedError: 'nothing' is undefined"),
        ("{% if %}", "is none: .* in line 1"),
        ("{{ 'a' | nofilter }}", "is none: No filter named 'nofilter'"),
        ("{{ messages + 1 }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages.append(1) }}", "SecurityError"),
    ],
)
def test_what_a_template_says(source: str, said: str) -> None:
    """An error of ours that passes it on."""
    with pytest.raises(RequestError, match=said):
        render(source, CHAT, {}, "m")


def test_a_long_chat_has_room() -> None:
    """What a rendering may use grows with the chat."""
    chat = [{"role": "user", "content": "x" * (UNITS // 4)}]
    assert (
        len(
            render(
                "{% for m in messages %}{{ m.content + '' }}{% set n = (m.content * 9)[1:] %}{% endfor %}",
                chat,
                {},
                "m",
            )
        )
        == UNITS // 4
    )
