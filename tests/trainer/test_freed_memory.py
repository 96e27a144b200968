"""Memory that one stage has freed is not held while the next one runs."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.trainer

SCRIPT = """
from strop_trainer import threads
from strop_trainer.training import resident_bytes

assert threads.keep_freed_memory()
held = [bytearray(60_000) for _ in range(4000)]
last = bytearray(60_000)
del held
kept = resident_bytes()
threads.give_back_freed_memory()
print(kept - resident_bytes())
"""


def test_freed_memory_is_given_back_between_stages() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    assert int(ended.stdout) > 200_000_000
