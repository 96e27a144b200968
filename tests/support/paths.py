"""Where the repository and what its scripts build lie."""

import os
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER_SCRIPTS = REPOSITORY / "tests" / "cluster"
CACHE = Path(os.environ.get("STROP_CACHE") or Path.home() / ".cache" / "strop")


def binaries() -> Path:
    """Returns the folder of the binaries that the tree's build inputs stand for.

    Raises:
        FileNotFoundError: They are not built.
    """
    script = CLUSTER_SCRIPTS / "build-binaries"
    folder = Path(subprocess.run([script, "--path"], capture_output=True, text=True, check=True).stdout.strip())
    if not (folder / ".complete").exists():
        msg = f"the binaries of this version are not built: run {script.relative_to(REPOSITORY)}"
        raise FileNotFoundError(msg)
    return folder
