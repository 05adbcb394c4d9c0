"""Chat templates in the shapes of the families that reason or call tools; short ones of our own."""

THINK = """\
{%- for m in messages %}
    {%- set content = m.content or '' %}
    {%- if m.role == 'assistant' %}
        {%- set reasoning = m.reasoning_content or '' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if reasoning and loop.last %}{{- '<think>\\n' + reasoning + '\\n</think>\\n\\n' }}{% endif %}
        {{- content + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- elif open is defined %}{{- '<think>\\n' }}
    {%- endif %}
{%- endif %}
"""
STRIPS = """\
{%- for m in messages %}
{%- if m.role == 'assistant' %}{{ '<A>' + m.content.split('</think>')[-1] }}
{%- else %}{{ '<U>' + m.content }}{% endif %}
{%- endfor %}{{ '<A>' if add_generation_prompt }}"""
BRACKETS = "{% for m in messages %}{{ m.content }}{% endfor %}[THINK]{{ thinking }}[/THINK]"
CHANNELS = (
    "{% macro strip(text) %}{% for part in text.split('<channel|>') %}{{ part.split('<|channel>')[0] }}"
    "{% endfor %}{% endmacro %}{{ messages }}"
)
HARMONY = """\
{%- for m in messages %}
    {%- if m.role == 'assistant' %}
        {%- if m.thinking %}
            {{- '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}
        {%- endif %}
        {{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}
    {%- else %}{{- '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{% endif %}
"""
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
