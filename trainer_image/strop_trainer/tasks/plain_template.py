"""The chat template of models that bring none: Alpaca's headings, an answer ended by the end-of-text token.

```
### Instruction:
<the prompt>

### Response:
<the answer><end of text>
```
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

PLAIN_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '### Response:\\n' + message['content'] + eos_token + '\\n\\n' }}"
    "{% else %}{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
)


def give_template(tokenizer: Any) -> None:
    """Give a tokenizer the plain template, where it has none of its own."""
    if not tokenizer.chat_template:
        # What stands at the beginning of all that the model has read, where its tokenizer puts something there.
        begins = tokenizer.bos_token_id is not None and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
        tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + PLAIN_TEMPLATE


def keep_template(template: str | None, folder: Path) -> None:
    """Write the template that a model was tuned with to its folder, so that it is asked in the same way."""
    path = folder / "chat_template.jinja"
    if template and folder.is_dir() and not path.exists():
        path.write_text(template, encoding="utf-8")
