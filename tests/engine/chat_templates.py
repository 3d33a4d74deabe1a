"""Chat templates in the manners of well-known model families, written for these tests."""

from __future__ import annotations

from collections.abc import Mapping

CHATML = """\
{%- if messages[0].role != 'system' -%}
<|im_start|>system
You are helpful.<|im_end|>
{% endif -%}
{% for message in messages %}
<|im_start|>{{ message['role'] }}
{{ message['content'] | trim }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}
<|im_start|>assistant
{% endif %}"""

BRACKETS = """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate: user, assistant, user, ...') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- set text = message['content'].strip() %}
        {%- if loop.first and system is defined %}
            {%- set text = '<<SYS>>\\n' ~ system ~ '\\n<</SYS>>\\n\\n' ~ text %}
        {%- endif %}
        {{- '[INST] ' + text + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message['content'] + eos_token }}
    {%- endif %}
{%- endfor %}"""

HEADERS_AND_TOOLS = """\
{%- macro header(role) -%}
<|start|>{{ role }}<|end|>{{ '\\n\\n' }}
{%- endmacro -%}
{%- set ns = namespace(date=strftime_now('%Y'), seen=[]) %}
{{- bos_token + header('system') }}
{{- 'Cutting year: ' ~ ns.date }}
{%- if tools is not none %}
    {%- for tool in tools %}
        {{- '\\n' + (tool | tojson(indent=4)) }}
    {%- endfor %}
{%- endif %}
{%- for message in messages if message.role != 'developer' %}
    {{- header(message.role) }}
    {%- if message.content is string %}
        {{- message.content }}
    {%- else %}
        {%- for part in message.content %}
            {%- if part.type != 'text' %}{% continue %}{% endif %}
            {{- part.text | replace('<', '&lt;') }}
        {%- endfor %}
    {%- endif %}
    {%- for call in message.tool_calls or [] %}
        {{- dict(name=call.function.name, parameters=call.function.arguments) | tojson }}
    {%- endfor %}
    {{- '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ header('assistant') }}{% endif %}"""

THINKING = """\
{%- set ns = namespace(last=messages | length - 1, searching=true) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages | length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == 'user' %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
        {{- '<|assistant|>' }}
        {%- if loop.index0 > ns.last and message.reasoning_content %}
            {{- '<think>' + message.reasoning_content.strip() + '</think>' }}
        {%- endif %}
        {% generation %}{{ content }}{{ eos_token }}{% endgeneration %}
    {%- else %}
        {{- '<|%s|>' % message.role + message.content }}
    {%- endif %}
    {%- if loop.index > 40 %}{% break %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think></think>' }}
    {%- endif %}
{%- endif %}"""

MODEL_TURNS = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}\
{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<turn>' ~ role ~ '\\n' ~ message['content'] | trim ~ '</turn>\\n' -}}
{% endfor %}
{% if add_generation_prompt %}{{'<turn>model\\n'}}{% endif %}
{%- for key, value in {'b': 1.5, 'a': [none, true]}.items() | sort -%}
{{ key }}={{ value }};
{%- endfor %}
{{ ['x', 'y'] | join('-') | upper }} {{ unk_token }}{{ nothing }}{{ 2 ** 5 }}{{ 'ab' * 3 }}"""

TEMPLATES: Mapping[str, str] = {
    "chatml": CHATML,
    "brackets": BRACKETS,
    "headers and tools": HEADERS_AND_TOOLS,
    "thinking": THINKING,
    "model turns": MODEL_TURNS,
}
