import json
import shutil
from pathlib import Path

import pytest
import torch

from strop_trainer import checkpoints
from strop_trainer.checkpoints import load_newest, save_checkpoint

pytestmark = pytest.mark.trainer

IDENTITY = {"plan": "sha256:1", "dataset": "sha256:2"}


def save(folder: Path, step: int, *, keep: int = 2, identity: dict[str, str] = IDENTITY) -> Path:
    tensors = {"a": torch.full((3,), float(step)), "bytes": torch.arange(4, dtype=torch.uint8)}
    return save_checkpoint(folder, step, tensors.items(), {"totals": {"tokens": step}}, keep=keep, identity=identity)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save(tmp_path, 7)
    found = load_newest(tmp_path, IDENTITY)
    assert found is not None
    assert (found.step, found.state) == (7, {"totals": {"tokens": 7}})
    assert found.tensors["a"].tolist() == [7.0] * 3
    assert found.tensors["bytes"].dtype is torch.uint8


def test_large_state_is_written_in_several_files_none_of_which_may_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "FILE_BYTES", 5)
    folder = save(tmp_path, 7)
    files = {path.name for path in folder.glob("*.safetensors")}
    assert files == {"tensors.safetensors", "tensors-1.safetensors"}
    found = load_newest(tmp_path, IDENTITY)
    assert found is not None
    assert set(found.tensors) == {"a", "bytes"}
    (folder / "tensors-1.safetensors").unlink()
    assert load_newest(tmp_path, IDENTITY) is None


def test_nothing_is_loaded_from_nothing(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "absent", IDENTITY) is None
    assert load_newest(tmp_path, IDENTITY) is None


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 10, 100):
        save(tmp_path, step, keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000004", "step-000000010", "step-000000100"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    (save(tmp_path, 2) / "state.json").write_text("broken")
    save(tmp_path, 2)
    assert load_newest(tmp_path, IDENTITY) is not None


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["remove", "cut", "change"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, damage: str
) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2) / file
    content = newest.read_bytes()
    if damage == "remove":
        newest.unlink()
    else:
        newest.write_bytes(content[: len(content) // 2] if damage == "cut" else content[:-2] + b"!!")
    found = load_newest(tmp_path, IDENTITY)
    assert found is not None
    assert found.step == 1
    assert "checkpoint of step 2 is not used" in capsys.readouterr().out


def test_a_manifest_cannot_name_other_files(tmp_path: Path) -> None:
    manifest = save(tmp_path, 1) / "manifest.json"
    manifest.write_text(json.dumps({"step": 1, "sha256": {"../../etc/passwd": "0"}}))
    assert load_newest(tmp_path, IDENTITY) is None


def test_a_checkpoint_of_another_run_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, 1)
    assert load_newest(tmp_path, {**IDENTITY, "dataset": "sha256:3"}) is None
    assert "it is of another dataset" in capsys.readouterr().out


OTHER = {**IDENTITY, "dataset": "sha256:3"}


def steps_of(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in folder.iterdir())


def test_what_another_run_has_left_pushes_nothing_out(tmp_path: Path) -> None:
    for step in (90, 100):
        save(tmp_path, step, identity=OTHER)
    for step, kept in ((10, [10, 100]), (20, [10, 20]), (30, [20, 30])):
        assert save(tmp_path, step).is_dir()
        assert steps_of(tmp_path) == kept
        found = load_newest(tmp_path, IDENTITY)
        assert found is not None
        assert found.step == step


def test_one_checkpoint_of_the_other_run_is_there_until_this_one_has_as_many_as_are_kept(tmp_path: Path) -> None:
    """Who puts the old rows back goes on from it."""
    for step in (5, 90, 100):
        save(tmp_path, step, identity=OTHER)
    save(tmp_path, 10)
    found = load_newest(tmp_path, OTHER)
    assert found is not None
    assert found.step == 100


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_pushes_nothing_out(tmp_path: Path, file: str, keep: int) -> None:
    for step in (90, 100):
        (save(tmp_path, step) / file).write_bytes(b"cut")
    assert load_newest(tmp_path, IDENTITY) is None
    for step in (10, 20, 30):
        save(tmp_path, step, keep=keep)
        found = load_newest(tmp_path, IDENTITY)
        assert found is not None
        assert found.step == step
    assert steps_of(tmp_path) == [10, 20, 30][-keep:]


def test_a_kill_while_saving_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*_args: object, **_more: object) -> None:
        raise KeyboardInterrupt

    save(tmp_path, 1)
    for broken in ("write_text", "rename"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, broken, kill)
            with pytest.raises(KeyboardInterrupt):
                save(tmp_path, 2)
        assert any(path.name.endswith(".part") for path in tmp_path.iterdir())
        found = load_newest(tmp_path, IDENTITY)
        assert found is not None
        assert found.step == 1
        assert not any(path.name.endswith(".part") for path in tmp_path.iterdir())


def test_everything_is_flushed_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    flush = checkpoints._flush
    rename = Path.rename

    def flushed(path: Path) -> None:
        order.append(path.name)
        flush(path)

    def renamed(self: Path, target: Path) -> Path:
        order.append("rename")
        return rename(self, target)

    monkeypatch.setattr(checkpoints, "_flush", flushed)
    monkeypatch.setattr(Path, "rename", renamed)
    save(tmp_path, 3)
    assert order == [
        "tensors.safetensors",
        "state.json",
        "manifest.json",
        ".step-000000003.part",
        "rename",
        tmp_path.name,
    ]


def test_nothing_is_pickled(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}
    assert not any(b"\x80\x04" in path.read_bytes()[:2] or b"PK" in path.read_bytes()[:2] for path in folder.iterdir())
    shutil.rmtree(folder)
