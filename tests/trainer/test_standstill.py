"""A trainer that only reads its libraries again is told from one that works."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from strop_trainer.exit_codes import ExitCode
from strop_trainer.standstill import LOOKS, Look, Watch, busy_seconds, memory_group, stands_still
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.trainer

MIB = 2**20
LIMIT = 640 * MIB
SEEN = [
    Look(10.0 * n, LIMIT, own, again, busy)
    for n, (own, again, busy) in enumerate(
        [
            (626_356_224, 2_927_254, 31.0),
            (631_332_864, 3_920_059, 31.1),
            (631_345_152, 4_987_501, 31.1),
            (638_337_024, 5_994_199, 31.3),
        ]
    )
]
"""What a trainer's group said every ten seconds while it stood still."""


def test_a_trainer_that_reads_its_libraries_again_and_again_stands_still() -> None:
    assert stands_still(SEEN, 2.0)
    assert stands_still(SEEN, 0.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"own": 500 * MIB},  # there is room for the libraries: a file is read that is larger than the rest
        {"again": 2_930_000},  # its memory is nearly full, and it stays so: that is what an estimate is for
        {"busy": 35.0},  # it computes
        {"limit": 800 * MIB},
    ],
)
@pytest.mark.parametrize("at", [1, 2, 3])
def test_one_look_that_says_otherwise_is_enough_to_go_on(changes: dict[str, int], at: int) -> None:
    assert not stands_still([*SEEN[:at], replace(SEEN[at], **changes), *SEEN[at + 1 :]], 2.0)


def test_it_takes_half_a_minute() -> None:
    assert len(SEEN) == LOOKS
    assert not stands_still(SEEN[1:], 2.0)


def group(root: Path, *, version: int, **files: str) -> Path:
    """Write what a process finds in a container, and return its group."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("0::/\n" if version == 2 else "5:memory:/kubepods/pod1/abc\n0::/\n")
    folder = root / "sys/fs/cgroup" if version == 2 else root / "sys/fs/cgroup/memory"
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("version", "limit", "stat"),
    [
        (
            1,
            "memory_limit_in_bytes",
            "rss 1\ntotal_rss 7\nworkingset_refault_file 2\ntotal_workingset_refault_file 9\n",
        ),
        (2, "memory_max", "anon 7\nfile 3\nworkingset_refault_anon 1\nworkingset_refault_file 9\n"),
    ],
)
def test_both_versions_of_control_groups_are_read(tmp_path: Path, version: int, limit: str, stat: str) -> None:
    group(tmp_path, version=version, **{limit: f"{LIMIT}\n", "memory_stat": stat})
    found = memory_group(tmp_path)
    assert found is not None
    look = found.look()
    assert look is not None
    assert (look.limit, look.own, look.again) == (LIMIT, 7, 9)


def test_a_kernel_that_does_not_count_is_not_asked_again(tmp_path: Path) -> None:
    group(tmp_path, version=2, memory_max=str(LIMIT), memory_stat="anon 7\n")
    found = memory_group(tmp_path)
    assert found is not None
    assert found.look() is None


@pytest.mark.parametrize(("version", "limit"), [(1, "9223372036854771712"), (2, "max")])
def test_without_a_limit_there_is_nothing_to_watch(tmp_path: Path, version: int, limit: str) -> None:
    group(tmp_path, version=version, **{"memory_max" if version == 2 else "memory_limit_in_bytes": limit})
    assert memory_group(tmp_path) is None
    assert memory_group(tmp_path / "elsewhere") is None


def test_it_is_ended_once_and_with_its_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    group(tmp_path, version=2, memory_max=str(LIMIT), memory_stat="anon 7\nworkingset_refault_file 9\n")
    found = memory_group(tmp_path)
    assert found is not None
    looks = iter([replace(SEEN[0], busy=20.0), *SEEN])
    monkeypatch.setattr(found, "look", lambda: next(looks))
    ended, limits = threading.Event(), []

    def end(limit: int) -> None:
        limits.append(limit)
        ended.set()

    Watch(found, 1.0, end, interval=0.01)
    assert ended.wait(10)
    assert limits == [LIMIT]


CHILD = """
import sys, subprocess, time
from functools import partial
import strop_trainer.__main__ as trainer
from strop_trainer.standstill import Watch
from tests.trainer.test_standstill import LIMIT, SEEN

class FullGroup:
    limit = LIMIT
    looks = iter(SEEN)
    def look(self):
        return next(self.looks)

def start(*_):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("rank", child.pid, flush=True)
    time.sleep(600)

trainer.memory_group, trainer.Watch, trainer.start = FullGroup, partial(Watch, interval=0.5), start
trainer.main()
"""


def test_the_trainer_ends_with_words_and_leaves_no_rank_behind(tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = {**os.environ, "STROP_TERMINATION_LOG": str(log), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", CHILD]
    found = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert found.returncode == ExitCode.BAD_CONFIGURATION, found.stderr
    word = json.loads(log.read_text())
    assert word["reason"] == "OutOfMemory"
    assert "at its limit of 640Mi" in word["message"]
    assert "OutOfMemory" in found.stdout
    rank = int(found.stdout.split("rank ")[1].split()[0])
    assert not psutil.pid_exists(rank) or psutil.Process(rank).status() == psutil.STATUS_ZOMBIE


def test_what_the_ranks_do_counts() -> None:
    before = busy_seconds()
    sum(range(2_000_000))
    assert busy_seconds() > before
