import gc
import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.tasks.row_store import Rows, spread

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


def test_two_iterations_at_a_time_do_not_disturb_each_other() -> None:
    words = [f"row {n} ".encode() * (n % 3000) for n in range(600)]
    rows = Rows(words)
    assert list(zip(rows, rows[2:], strict=False)) == list(zip(words, words[2:], strict=False))
    assert list(rows.select([500, 3, 3, 599])) == [words[500], words[3], words[3], words[599]]


def test_no_room_for_the_rows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
        with pytest.raises(TrainerError, match=r"dataset: no room for its rows .*\(No space left on device\)") as told:
            Rows([b"row"])
    assert told.value.exit_code is ExitCode.BAD_CONFIGURATION


def test_no_room_for_the_last_of_the_rows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with suppress(OSError), Path("/dev/full").open("w+b", buffering=1 << 20) as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
        rows = Rows([b"row"])
        with pytest.raises(TrainerError, match=r"dataset: no room for its rows .*\(No space left on device\)"):
            list(rows)
        with pytest.raises(TrainerError, match="dataset: no room for its rows"):
            rows[0]


def test_no_folder_for_the_rows_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(TrainerError, match="no room for its rows among the temporary files"):
        Rows()


READ = """
import json, sys
from pathlib import Path

from strop_trainer.plan import DatasetPlan
from strop_trainer.sources import RowFile
from strop_trainer.tasks import task_named
from strop_trainer.tasks.extractive_qa import ExtractiveQaTask

task = ExtractiveQaTask() if sys.argv[1] == "an encoder's question-answering" else task_named(sys.argv[1])
path = Path(sys.argv[2])

def peak():  # not getrusage's, which begins with that of the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

before = peak()
found = task.read([RowFile(path.name, path)], [], DatasetPlan(train=[]), 42)
longest = max(len(row) for part in (found.train, found.validation) for row in part)
print(json.dumps([found.statistics.train_rows, found.statistics.validation_rows, longest, (peak() - before) // 1024]))
"""
"""The trainer's check of rows, and a look at each."""


@pytest.mark.parametrize(
    "task",
    [
        "chat",
        "text-classification",
        "text-generation",
        "preference",
        "token-classification",
        "an encoder's question-answering",
    ],
)
def test_the_rows_of_a_large_file_are_checked_and_kept_in_bounded_memory(tmp_path: Path, task: str) -> None:
    count, text = 200_000, "The quick brown fox jumps over the lazy dog. " * 22  # 200 MB
    long_words = ["The-quick-brown-fox-jumps-over-the-lazy-dog." * 2] * 11  # words as short as a text's take 40 s
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for n in range(count):
            words = f"{n:06d} {text}"
            turns = [{"role": "user", "content": words}, {"role": "assistant", "content": "Yes."}]
            row = {
                "chat": {"messages": turns},
                "text-classification": {"text": words, "label": f"label {n % 7}"},
                "text-generation": {"text": words},
                "preference": {"prompt": words, "chosen": "Yes.", "rejected": "No."},
                "token-classification": {"tokens": [f"{n:06d}", *long_words], "tags": ["B-NUM", *["O"] * 11]},
                "an encoder's question-answering": {"question": "Which?", "context": words, "answer": f"{n:06d}"},
            }[task]
            file.write(json.dumps(row) + "\n")
    assert path.stat().st_size > 200_000_000
    done = subprocess.run([sys.executable, "-c", READ, task, path], capture_output=True, text=True, check=True)
    train, held, longest, grown = json.loads(done.stdout)
    assert train + held == count
    assert longest > len(text)
    assert grown < 32, f"{grown} MiB for 200 MB"


def test_short_rows_are_told_apart_in_bounded_memory(tmp_path: Path) -> None:
    count, path = 300_000, tmp_path / "rows.jsonl"
    with path.open("w") as file:
        file.writelines(f'{{"text": "a short text, number {n}", "label": "label {n % 7}"}}\n' for n in range(count))
    command = [sys.executable, "-c", READ, "text-classification", path]
    train, held, _, grown = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert train + held == count
    assert grown * (1 << 20) < 64 * count, f"{grown} MiB for {count} rows"


@pytest.mark.parametrize("kind", [Rows, list])
def test_some_of_the_rows_are_of_the_whole(kind: Any) -> None:
    rows = kind([b"%d" % n for n in range(10)])
    assert sorted(spread(rows, 3)[:3]) == [b"1", b"5", b"8"]
    assert sorted(spread(rows, 3)) == sorted(rows)
    assert list(spread(rows, 10)) == list(spread(rows, 11))
    assert list(spread(rows, 0)) == list(rows)


@pytest.mark.parametrize("count", [20, 32, 100, 1000])
@pytest.mark.parametrize("used", [4, 8, 20])
def test_the_first_of_some_rows_are_of_the_whole_too(count: int, used: int) -> None:
    places = [int(row) for row in spread([b"%d" % n for n in range(100)], count)[:used]]
    quarters = [sum(place // 25 == quarter for place in places) for quarter in range(4)]
    assert sum(quarters) == used
    assert max(quarters) - min(quarters) <= 2
