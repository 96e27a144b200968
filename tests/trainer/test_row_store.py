import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from strop_trainer.tasks.row_store import Rows

pytestmark = pytest.mark.trainer

WORDS = [b"one", b"", b"two\nlines", "drei ü".encode(), b"4" * 3_000_000]


def test_rows_are_a_sequence() -> None:
    rows = Rows(WORDS)
    assert list(rows) == WORDS
    assert [rows[place] for place in range(-5, 5)] == [*WORDS, *WORDS]
    assert rows == WORDS
    assert rows != WORDS[1:]
    assert list(rows[1:4]) == WORDS[1:4]
    assert list(rows[::-2]) == WORDS[::-2]
    assert list(rows[:100]) == WORDS
    assert not Rows()
    with pytest.raises(IndexError):
        rows[5]


def test_a_selection_of_a_selection_reads_the_same_file_after_the_first_is_gone() -> None:
    rows = Rows(WORDS)
    some = rows.select([3, 0, 1]).select([2, 0])
    del rows
    gc.collect()
    assert list(some) == [b"", "drei ü".encode()]
    assert list(some[1:]) == ["drei ü".encode()]


def test_rows_can_be_read_while_more_are_added_and_in_a_child() -> None:
    rows = Rows([b"first"])
    assert rows[0] == b"first"
    rows.append(b"second")
    assert list(rows) == [b"first", b"second"]
    child = os.fork()
    if not child:
        os._exit(0 if list(rows) == [b"first", b"second"] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert rows[1] == b"second"


READ = """
import json, resource, sys
from pathlib import Path

from strop_trainer.plan import DatasetPlan
from strop_trainer.sources import RowFile
from strop_trainer.tasks import task_named

task, path = task_named(sys.argv[1]), Path(sys.argv[2])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
found = task.read([RowFile(path.name, path)], [], DatasetPlan(train=[]), 42)
longest = max(len(row) for part in (found.train, found.validation) for row in part)
print(json.dumps([found.statistics.train_rows, found.statistics.validation_rows, longest, (peak() - before) // 1024]))
"""
"""The trainer's check of rows, and a look at each."""


@pytest.mark.parametrize("task", ["chat", "text-classification", "text-generation"])
def test_the_rows_of_a_large_file_are_checked_and_kept_in_bounded_memory(tmp_path: Path, task: str) -> None:
    count, text = 200_000, "The quick brown fox jumps over the lazy dog. " * 22  # 200 MB
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for n in range(count):
            words = f"{n:06d} {text}"
            turns = [{"role": "user", "content": words}, {"role": "assistant", "content": "Yes."}]
            row = {
                "chat": {"messages": turns},
                "text-classification": {"text": words, "label": f"label {n % 7}"},
                "text-generation": {"text": words},
            }[task]
            file.write(json.dumps(row) + "\n")
    assert path.stat().st_size > 200_000_000
    done = subprocess.run([sys.executable, "-c", READ, task, path], capture_output=True, text=True, check=True)
    train, held, longest, grown = json.loads(done.stdout)
    assert train + held == count
    assert longest > len(text)
    assert grown < 64, f"{grown} MiB for 200 MB"
