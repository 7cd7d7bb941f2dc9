"""Chat templates that tell of tools in the ways that are found in checkpoints, written anew and short."""

from dataclasses import dataclass

HERMES = """\
{%- if tools %}<s>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}Tools:
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}</s>
{% elif messages[0].role == 'system' %}<s>system
{{ messages[0].content }}</s>
{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}<s>user{% endif %}
<tool_response>
{{ m.content }}
</tool_response>
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}</s>
{% endif %}
{%- elif m.role == 'assistant' and m.tool_calls %}<s>assistant
{%- if m.content %}
{{ m.content }}
{%- endif %}
{%- for call in m.tool_calls %}{{ "\\n<tool_call>" }}
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}</s>
{% elif m.role != 'system' %}<s>{{ m.role }}
{{ m.content }}</s>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<s>assistant
{% endif %}"""

#: One call an answer, told by nothing but the object; tools stand in the first question.
LLAMA = """\
{%- set first = messages[0] -%}
{%- for m in messages -%}
<s>{{ 'ipython' if m.role == 'tool' else m.role }}

{% if m.tool_calls -%}
{%- if m.tool_calls | length > 1 %}{{ raise_exception('one call at a time') }}{% endif -%}
{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}
{%- else -%}
{%- if loop.first and tools %}{% for tool in tools %}{{ tool | tojson(indent=4) }}
{% endfor %}{% endif -%}
{{ m.content }}
{%- endif -%}
</s>
{%- endfor -%}
{%- if add_generation_prompt %}<s>assistant

{% endif %}"""

#: A list between two marks.
LISTED = """\
{%- if tools %}<s>system
[AVAILABLE]{{ tools | tojson }}[/AVAILABLE]</s>{% endif -%}
{%- for m in messages -%}
{%- if m.tool_calls -%}
<s>assistant
[CALLS][{%- for call in m.tool_calls -%}
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}{{ '' if loop.last else ', ' }}
{%- endfor -%}][/CALLS]</s>
{%- else -%}<s>{{ m.role }}
{{ m.content }}</s>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<s>assistant
{% endif %}"""

#: Arguments as elements, which is no JSON.
ELEMENTS = """\
{%- if tools %}<s>system
{{ tools | tojson }}</s>{% endif -%}
{%- for m in messages -%}
<s>{{ m.role }}
{{ m.content }}
{%- for call in m.tool_calls or [] -%}
<call={{ call.function.name }}>{% for key, value in call.function.arguments | items %}<{{ key }}>{{ value }}</{{ key }}>
{%- endfor %}</call>
{%- endfor -%}
</s>
{%- endfor -%}
{%- if add_generation_prompt %}<s>assistant
{% endif %}"""

#: Says nothing of tools, and takes turns of a user and an assistant only.
STRICT = """\
{%- for m in messages -%}
{%- if m.role == 'system' and loop.first %}{% elif m.role not in ('user', 'assistant') -%}
{{ raise_exception('no such role') }}
{%- elif not loop.first and messages[loop.index0 - 1].role == m.role %}{{ raise_exception('turns must alternate') }}
{%- endif -%}
<s>{{ m.role }}
{{ m.content }}</s>
{%- endfor -%}
{%- if add_generation_prompt %}<s>assistant
{% endif %}"""


@dataclass(frozen=True)
class Written:
    """A template, and how two calls stand in an answer of its model: `f(x=1)`, `g()`."""

    source: str
    calls: str


ONE, TWO = '{"name": "f", "arguments": {"x": 1}}', '{"name": "g", "arguments": {}}'
NATIVE = {
    "hermes": Written(HERMES, f"<tool_call>\n{ONE}\n</tool_call>\n<tool_call>\n{TWO}\n</tool_call>"),
    "llama": Written(LLAMA, ONE.replace("arguments", "parameters") + "\n" + TWO.replace("arguments", "parameters")),
    "listed": Written(LISTED, f"[CALLS][{ONE}, {TWO}][/CALLS]"),
}
OTHERS = {"elements": ELEMENTS, "strict": STRICT}
