"""What is generated under docs/: `python docs/generate.py` in the repository root, with helm on the path.

A new page is a function that returns its files, in SOURCES.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from docs import chart_reference, code_reference, crd_reference, planning_reference  # noqa: E402 - docs is no installed package

Files = Mapping[Path, str]


def _chart() -> Files:
    return {path.relative_to(ROOT): text for path, text in chart_reference.files(chart_reference.render()).items()}


SOURCES: tuple[Callable[[], Files], ...] = (
    crd_reference.files,
    code_reference.files,
    planning_reference.files,
    _chart,
)


def drift(root: Path, sources: Sequence[Callable[[], Files]] = SOURCES) -> dict[Path, str]:
    """Return the generated files that are missing or differ, with what they should be."""
    expected = {path: text for source in sources for path, text in source().items()}
    return {
        path: text
        for path, text in expected.items()
        if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or with `--check` only compare; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file would change")
    options = parser.parse_args(arguments)
    changed = drift(ROOT)
    for path, text in changed.items():
        if not options.check:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(text, encoding="utf-8")
        sys.stderr.write(f"{'differs' if options.check else 'wrote'}: {path}\n")
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
