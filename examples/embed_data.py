"""Puts the rows of examples/data behind the job in quickstart.yaml, so that one file is all that is needed."""

from __future__ import annotations

import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent
HEADER = """---
# The rows, from examples/data (licences there); `python examples/embed_data.py` writes this part.
apiVersion: v1
kind: ConfigMap
metadata: {name: quickstart-data}
data:
"""


def embedded(text: str, data: Path) -> str:
    """Return a manifest whose second document is a ConfigMap with the rows of a folder.

    Args:
        text: the manifest; all from its first `---` on is replaced.
        data: folder of .jsonl files.
    """
    job = text.partition("---\n")[0]
    parts = [job, HEADER]
    for path in sorted(data.glob("*.jsonl")):
        parts.append(f"  {path.name}: |\n")
        parts += [f"    {line}\n" for line in path.read_text(encoding="utf-8").splitlines()]
    return "".join(parts)


def main() -> int:
    """Rewrite quickstart.yaml."""
    path = EXAMPLES / "quickstart.yaml"
    path.write_text(embedded(path.read_text(encoding="utf-8"), EXAMPLES / "data"), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
