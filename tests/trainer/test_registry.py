"""Versions appear whole or not at all, once a job, each with a number of its own."""

import errno
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from strop_trainer import registry
from strop_trainer.errors import Preempted, TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.manifest import Manifest, file_sha256, read_manifest
from strop_trainer.registry import PublishedLocation, check_writable, clean_staging, publish, read_index

DIGEST = "sha256:" + "0" * 64


def fill_with(text: str) -> Callable[[Path], None]:
    def fill(stage: Path) -> None:
        (stage / "onnx").mkdir()
        (stage / "onnx" / "model.onnx").write_text(text)
        script = stage / "README.md"
        script.write_text(text)
        script.chmod(0o777)

    return fill


def publish_text(root: Path, uid: str, text: str = "x", aliases: tuple[str, ...] = ()) -> PublishedLocation:
    return publish(root, "router", uid, fill_with(text), plan_digest=DIGEST, aliases=aliases)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_versions_are_numbered_in_order(tmp_path: Path) -> None:
    assert [publish_text(tmp_path, f"job-{number}").version for number in range(3)] == [1, 2, 3]
    assert names(tmp_path / "router") == ["1", "2", "3", "index.json"]


def test_a_version_says_what_it_consists_of(tmp_path: Path) -> None:
    found = publish_text(tmp_path, "job", "four")
    manifest = Manifest.model_validate_json((found.path / "manifest.json").read_bytes())
    assert [(entry.path, entry.size) for entry in manifest.files] == [("README.md", 4), ("onnx/model.onnx", 4)]
    assert found.size_bytes == 8
    assert file_sha256(found.path / "manifest.json") == found.manifest_sha256
    assert found.path == tmp_path / "router" / "1"


def test_files_can_be_read_by_all_and_changed_by_none(tmp_path: Path) -> None:
    found = publish_text(tmp_path, "job")
    for path in found.path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o444), path
    assert stat.S_IMODE(found.path.stat().st_mode) == 0o755
    assert stat.S_IMODE((found.path.parent / "index.json").stat().st_mode) == 0o644


def test_a_job_publishes_once(tmp_path: Path) -> None:
    first = publish_text(tmp_path, "job", "first")

    def refuse(_stage: Path) -> None:
        pytest.fail("filled again")

    (tmp_path / "router" / "index.json").unlink()  # as if it was killed between the rename and the index
    assert publish(tmp_path, "router", "job", refuse, plan_digest=DIGEST) == first
    index = read_index(tmp_path / "router")
    assert index is not None
    assert index.aliases == {"latest": 1}


def test_numbers_are_not_given_twice(tmp_path: Path) -> None:
    publish_text(tmp_path, "job-1")
    second = publish_text(tmp_path, "job-2")
    for path in sorted(second.path.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    second.path.rmdir()
    assert publish_text(tmp_path, "job-3").version == 3
    index = read_index(tmp_path / "router")
    assert index is not None
    assert [entry.version for entry in index.versions] == [1, 3]


def test_aliases_point_at_the_newest_that_asked_for_them(tmp_path: Path) -> None:
    publish_text(tmp_path, "job-1", aliases=("prod", "latest"))
    publish_text(tmp_path, "job-2", aliases=("canary",))
    publish_text(tmp_path, "job-3")
    index = read_index(tmp_path / "router")
    assert index is not None
    assert index.aliases == {"canary": 2, "latest": 3, "prod": 1}


def test_a_lost_index_is_rebuilt_from_the_folders(tmp_path: Path) -> None:
    publish_text(tmp_path, "job-1", aliases=("prod",))
    publish_text(tmp_path, "job-2")
    folder = tmp_path / "router"
    before = (folder / "index.json").read_bytes()
    (folder / "index.json").write_text("{ half")
    registry.update_index(folder, "router", "repair")
    assert (folder / "index.json").read_bytes() == before


def test_jobs_that_publish_at_once_each_get_a_version(tmp_path: Path) -> None:
    count = 8
    script = (
        "import sys; from pathlib import Path; from strop_trainer.registry import publish\n"
        "root, uid = Path(sys.argv[1]), sys.argv[2]\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "fill = lambda stage: (stage / 'a').write_text(uid)\n"
        f"print(publish(root, 'router', uid, fill, plan_digest={DIGEST!r}).version)\n"
    )
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), f"job-{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    for job in jobs:
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"
    versions = []
    for job in jobs:
        assert job.stdin is not None
        job.stdin.write("go\n")
        job.stdin.flush()
    for job in jobs:
        output, _ = job.communicate(timeout=60)
        assert job.returncode == 0
        versions.append(int(output))
    assert sorted(versions) == list(range(1, count + 1))
    folder = tmp_path / "router"
    assert names(folder) == sorted([*map(str, range(1, count + 1)), "index.json"])
    for number, job_version in enumerate(versions):
        assert (folder / str(job_version) / "a").read_text() == f"job-{number}"
    index = read_index(folder)
    assert index is not None
    assert [entry.version for entry in index.versions] == list(range(1, count + 1))
    assert index.aliases == {"latest": count}


def test_a_reader_never_sees_half_a_version(tmp_path: Path) -> None:
    folder, stop, seen, wrong = tmp_path / "router", threading.Event(), set(), []

    def read() -> None:
        while not stop.is_set():
            for number in registry.version_numbers(folder):
                manifest = read_manifest(folder / str(number))
                if manifest is None or any(not (folder / str(number) / e.path).exists() for e in manifest.files):
                    wrong.append(number)
                seen.add(number)
            index = folder / "index.json"
            if index.exists() and read_index(folder) is None:
                wrong.append(-1)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(20):
            publish_text(tmp_path, f"job-{number}")
    finally:
        stop.set()
        reader.join()
    assert not wrong
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "may not be written"),
    ],
)
@pytest.mark.parametrize("failing", ["mkdir", "write_bytes", "rename"])
def test_a_volume_that_refuses_is_named_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str, failing: str
) -> None:
    real = getattr(Path, failing)

    def fail(path: Path, *arguments: object, **options: object) -> object:
        if ".staging" in str(path):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, failing, fail)
    with pytest.raises(TrainerError, match=words) as caught:
        publish_text(tmp_path, "job")
    monkeypatch.undo()
    assert caught.value.exit_code == ExitCode.CANNOT_PUBLISH
    assert caught.value.reason == "CannotPublish"
    assert not (tmp_path / "router").exists() or names(tmp_path / "router") == []


def test_a_volume_that_knows_no_modes_can_be_published_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, _mode: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    def fill(stage: Path) -> None:
        (stage / "a").write_text("a")

    monkeypatch.setattr(Path, "chmod", refuse)
    assert publish(tmp_path, "router", "job", fill, plan_digest=DIGEST).version == 1


def test_a_volume_that_is_really_full(tmp_path: Path) -> None:
    script = (
        "set -e; mount -t tmpfs -o size=256k none $1; exec $2 -c '"
        "import sys; from pathlib import Path; from strop_trainer.registry import copy_tree, publish\n"
        "root, big = map(Path, sys.argv[1:])\n"
        'publish(root, "router", "job", lambda stage: copy_tree(big, stage / "onnx"), plan_digest="sha256:")'
        "' $1 $3"
    )
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "model.onnx").write_bytes(bytes(10**6))
    (tmp_path / "volume").mkdir()
    paths = [str(tmp_path / "volume"), sys.executable, str(tmp_path / "big")]
    unshare = ["unshare", "--mount", *user, "sh", "-c", script, "sh", *paths]
    found = subprocess.run(unshare, capture_output=True, text=True, check=False, timeout=60)
    assert "TrainerError: the registry volume is full (No space left on device" in found.stderr


@pytest.mark.parametrize("error", [RuntimeError("boom"), Preempted()])
def test_what_fails_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    publish_text(tmp_path, "job-1")

    def fill(stage: Path) -> None:
        (stage / "half").write_text("half")
        raise error

    with pytest.raises(type(error)):
        publish(tmp_path, "router", "job-2", fill, plan_digest=DIGEST)
    assert names(tmp_path / "router") == ["1", "index.json"]


def test_a_killed_attempt_is_cleared_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / "router" / ".staging-job"
    left.mkdir(parents=True)
    (left / "half").write_text("half")
    found = publish_text(tmp_path, "job")
    assert names(found.path) == ["README.md", "manifest.json", "onnx"]


def test_staging_is_cleaned_by_owner_and_age(tmp_path: Path) -> None:
    folder = tmp_path / "router"
    for uid in ("own", "running", "dead"):
        (folder / f".staging-{uid}").mkdir(parents=True)
    long_ago = time.time() - registry.STALE_STAGING_S - 60
    os.utime(folder / ".staging-dead", (long_ago, long_ago))
    clean_staging(tmp_path, "router", "own")
    assert names(folder) == [".staging-running"]
    clean_staging(tmp_path, "no-such-model", "own")
    assert not (tmp_path / "no-such-model").exists()


def test_a_rename_whose_answer_was_lost_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.rename

    def rename_and_lose_the_answer(path: Path, target: Path) -> Path:
        real(path, target)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))

    monkeypatch.setattr(Path, "rename", rename_and_lose_the_answer)
    assert publish_text(tmp_path, "job").version == 1


def test_a_file_in_the_way_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "router").mkdir()
    (tmp_path / "router" / "1").write_text("a person's note")
    assert publish_text(tmp_path, "job").version == 2


@pytest.mark.parametrize("model", ["../up", "Upper", "a/b", "", "-a", "a" * 64])
def test_names_never_become_paths(tmp_path: Path, model: str) -> None:
    with pytest.raises(TrainerError, match=r"output\.model: found"):
        publish(tmp_path, model, "job", fill_with("x"), plan_digest=DIGEST)


def test_a_job_uid_never_becomes_a_path(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="job uid"):
        publish(tmp_path, "router", "../../etc", fill_with("x"), plan_digest=DIGEST)


def test_what_is_not_a_file_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="link: neither a file nor a folder"):
        publish(tmp_path, "router", "job", lambda stage: (stage / "link").symlink_to("/etc/passwd"), plan_digest=DIGEST)
    assert names(tmp_path / "router") == []


def test_a_writable_volume_passes_and_keeps_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path, "router", "job", needed_bytes=1)
    assert names(tmp_path / "router") == []


def test_a_volume_without_room_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"GB free, the version needs about 1000000000\.00 GB") as caught:
        check_writable(tmp_path, "router", "job", needed_bytes=10**18)
    assert caught.value.exit_code == ExitCode.CANNOT_PUBLISH


def test_a_registry_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "registry").write_text("")
    with pytest.raises(TrainerError, match="a file where a folder belongs"):
        check_writable(tmp_path / "registry", "router", "job")


def test_a_tree_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "a").mkdir(parents=True)
    (source / "a" / "b").write_text("b")
    registry.copy_tree(source, tmp_path / "target")
    assert (tmp_path / "target" / "a" / "b").read_text() == "b"


def test_the_index_is_one_json_document(tmp_path: Path) -> None:
    publish_text(tmp_path, "job")
    found = json.loads((tmp_path / "router" / "index.json").read_text())
    assert found["schema"] == "strop.dev/index/v1alpha1"
    assert found["versions"][0]["jobUid"] == "job"
