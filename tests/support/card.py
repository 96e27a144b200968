"""The model card, as its reader uses it."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path


def run_card(version: Path, text: str) -> str:
    """Run the code that the model card shows, with a text of one's own; return what it prints."""
    (code,) = re.findall(r"```python\n(.*?)```", (version / "README.md").read_text(), re.DOTALL)
    printed = io.StringIO()
    with contextlib.chdir(version), contextlib.redirect_stdout(printed):
        exec(compile(code.replace('"…"', repr(text)), "README.md", "exec"), {})  # noqa: S102 - our own card
    return printed.getvalue().strip()
