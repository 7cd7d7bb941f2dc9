"""Chat templates that mark thinking in the ways that are found in checkpoints, written anew and short."""

_TURNS = """\
{%- for m in messages %}
{%- if m.role == 'assistant' %}<s>assistant
{%- if m.reasoning_content and loop.index0 > last.at %}
<think>
{{ m.reasoning_content }}
</think>

{{ m.content }}
{%- else %}
{{ m.content.split('</think>')[-1] }}
{%- endif %}
{%- for call in m.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}</s>
{% else %}<s>{{ m.role }}
{{ m.content }}</s>
{% endif %}
{%- endfor %}"""
_LAST = (
    "{%- set last = namespace(at=-1) %}{%- for m in messages %}{%- if m.role == 'user' %}"
    "{%- set last.at = loop.index0 %}{%- endif %}{%- endfor %}"
)
_TOOLS = "{%- if tools %}<s>tools{% for tool in tools %}{{ tool | tojson }}{% endfor %}</s>\n{% endif %}"
#: A switch, and thoughts of the last turns alone.
SWITCHED = f"""\
{_LAST}{_TOOLS}{_TURNS}
{{%- if add_generation_prompt %}}<s>assistant
{{% if enable_thinking is defined and enable_thinking is false %}}<think>

</think>

{{% endif %}}{{% endif %}}"""
#: The prompt begins the thinking itself, whatever anybody wants.
BEGUN = f"{_LAST}{_TOOLS}{_TURNS}{{%- if add_generation_prompt %}}<s>assistant\n<think>\n{{% endif %}}"
#: Other marks, another name for what they surround, and off unless it is asked for.
BRACKETS = """\
{%- for m in messages %}[{{ m.role }}]
{%- if m.thinking %}[THINK]{{ m.thinking }}[/THINK]{% endif %}{{ m.content }}[/{{ m.role }}]
{%- endfor %}{% if add_generation_prompt %}[assistant]{% if thinking %}[THINK]{% endif %}{% endif %}"""
#: A mark of two parts.
CHANNELS = """\
{%- for m in messages %}<|turn>{{ m.role }}
{% if m.reasoning %}<|channel>thought
{{ m.reasoning }}
<channel|>{% endif %}{{ m.content }}<turn|>
{% endfor %}{% if add_generation_prompt %}<|turn>model
{% endif %}"""
#: Says nothing of thinking.
SILENT = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}<s>assistant\n"
