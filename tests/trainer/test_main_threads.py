import subprocess
import sys
from pathlib import Path

import pytest

from strop_trainer.errors import TrainerError
from strop_trainer.threads import cgroup_quota, decide_threads, real_cores, set_threads


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_cgroup_v2_takes_the_tightest_level(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pods/one\n",
            "sys/fs/cgroup/pods/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/pods/one/cpu.max": "max 100000\n",
        },
    )
    assert cgroup_quota(root) == 1.5


def test_cgroup_v2_in_a_container_has_its_own_root(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"})
    assert cgroup_quota(root) == 2.0


def test_cgroup_v1_beside_an_empty_unified_hierarchy(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/cpu,cpuacct/pod/"
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/pod\n3:cpuset:/pod\n0::/\n",
            group + "cpu.cfs_quota_us": "50000",
            group + "cpu.cfs_period_us": "100000",
        },
    )
    assert cgroup_quota(root) == 0.5
    (root / group / "cpu.cfs_quota_us").write_text("-1")
    assert cgroup_quota(root) is None


def test_no_cgroup_is_no_quota(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path) is None


def test_hyperthreads_count_once(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        write(tmp_path, {f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": siblings + "\n"})
    assert real_cores({0, 1, 2, 3}, tmp_path) == 2
    assert real_cores({0, 2}, tmp_path) == 1
    assert real_cores({7, 8}, tmp_path) == 2


@pytest.mark.parametrize(
    ("quota", "cores", "ranks", "threads"),
    [
        (None, 8, 1, 8),
        (2.0, 8, 1, 2),
        (1.5, 8, 1, 1),
        (1.8, 2, 1, 2),
        (0.5, 8, 1, 1),
        (16.0, 8, 1, 8),
        (8.0, 8, 3, 2),
        (2.0, 8, 4, 1),
    ],
)
def test_threads_are_whole_cpus_of_the_quota_shared_by_ranks(quota, cores, ranks, threads) -> None:
    assert decide_threads(quota, cores, ranks) == threads


def test_asked_for_threads_win_and_must_be_a_number() -> None:
    assert decide_threads(1.0, 8, 1, "4") == 4
    for wrong in ("0", "many", "-1"):
        with pytest.raises(TrainerError, match="STROP_THREADS"):
            decide_threads(1.0, 8, 1, wrong)


def test_the_variables_are_set_for_every_library() -> None:
    environment = {"STROP_THREADS": "1", "OMP_NUM_THREADS": "64"}
    assert set_threads(environment, 1) == (1, "STROP_THREADS")
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "1"


def test_nothing_here_has_imported_torch_to_find_out() -> None:
    code = (
        "import sys, strop_trainer.threads, strop_trainer.sources.hub, strop_trainer.sources.web, strop_trainer.tasks;"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
