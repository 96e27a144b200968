import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest

from strop_trainer import sources
from strop_trainer.context import Settings
from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from strop_trainer.plan import DataFile, ModelSource
from strop_trainer.sources.model_folder import check_model_folder, fingerprint


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for name in ("volumes/data", "configmaps/rows", "work"):
        (tmp_path / name).mkdir(parents=True)
    return Settings(
        plan=tmp_path / "plan.json",
        volumes=tmp_path / "volumes",
        config_maps=tmp_path / "configmaps",
        registry=tmp_path / "registry",
        work=tmp_path / "work",
        job_uid="uid",
    )


def failing(settings: Settings, source: str) -> TrainerError:
    with pytest.raises(TrainerError) as caught:
        sources.fetch_files(DataFile(source=source), settings)
    return caught.value


def test_a_file_and_a_folder_of_a_claim(settings: Settings) -> None:
    rows = settings.volumes / "data" / "rows"
    rows.mkdir()
    for name in ("b.jsonl", "a.jsonl", "notes.md"):
        (rows / name).write_text("{}\n")
    one = sources.fetch_files(DataFile(source="pvc://data/rows/b.jsonl"), settings)
    assert [(file.name, file.path) for file in one] == [("pvc://data/rows/b.jsonl", rows / "b.jsonl")]
    folder = sources.fetch_files(DataFile(source="pvc://data/rows"), settings)
    assert [file.name for file in folder] == ["pvc://data/rows/a.jsonl", "pvc://data/rows/b.jsonl"]


def test_a_config_map_as_kubelet_mounts_it(settings: Settings) -> None:
    mount = settings.config_maps / "rows"
    (mount / "..2026_01").mkdir()
    (mount / "..2026_01" / "train").write_text("{}\n")
    (mount / "..data").symlink_to("..2026_01")
    (mount / "train").symlink_to("..data/train")
    (found,) = sources.fetch_files(DataFile(source="configmap://rows/train"), settings)
    assert found.path.read_text() == "{}\n"


def test_missing_claim_file_and_empty_folder(settings: Settings) -> None:
    (settings.volumes / "data" / "empty").mkdir()
    for source, words in {
        "pvc://nowhere/rows.jsonl": "claim nowhere is not mounted",
        "configmap://nowhere/rows": "ConfigMap nowhere is not mounted",
        "pvc://data/rows.jsonl": "claim data has no 'rows.jsonl'",
        "pvc://data/empty": "the folder has no file of rows",
    }.items():
        error = failing(settings, source)
        assert error.exit_code is ExitCode.MISSING_INPUT
        assert words in error.message


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "/etc/passwd", "up", "up/secret", "loop"])
def test_a_path_never_leaves_its_claim(settings: Settings, path: str) -> None:
    (settings.volumes / "secret").write_text("{}\n")
    (settings.volumes / "data" / "up").symlink_to(settings.volumes)
    (settings.volumes / "data" / "loop").symlink_to("loop")
    error = failing(settings, f"pvc://data/{path}")
    assert error.exit_code in {ExitCode.BAD_CONFIGURATION, ExitCode.MISSING_INPUT}
    assert "claim data" in error.message


def test_a_folder_of_rows_does_not_leave_its_claim_by_a_link(settings: Settings) -> None:
    rows = settings.volumes / "data" / "rows"
    rows.mkdir()
    (settings.volumes / "secret.jsonl").write_text("{}\n")
    (settings.volumes / "data" / "other").write_text("{}\n")
    (rows / "a.jsonl").symlink_to("../other")
    (found,) = sources.fetch_files(DataFile(source="pvc://data/rows/"), settings)
    assert (found.name, found.path.read_text()) == ("pvc://data/rows/a.jsonl", "{}\n")
    (rows / "b.jsonl").symlink_to(settings.volumes / "secret.jsonl")
    error = failing(settings, "pvc://data/rows")
    assert error.exit_code is ExitCode.BAD_CONFIGURATION
    assert "pvc://data/rows/b.jsonl: the path leads out of claim data by a link" in error.message


@pytest.mark.parametrize("path", ["/{secret}", "a//{secret}", "a/", "../x", "a/..", "/"])
def test_a_path_never_leaves_its_dataset(settings: Settings, path: str) -> None:
    (settings.work / "secret.jsonl").write_text("{}\n")
    source = "hf://datasets/a/b/" + path.format(secret=settings.work / "secret.jsonl")
    with pytest.raises(TrainerError) as caught:  # the commit is pinned: the hub is not asked for one
        sources.fetch_files(DataFile(source=source, revision="a" * 40), settings)
    assert caught.value.exit_code is ExitCode.BAD_CONFIGURATION
    assert f"dataset {source}: expected hf://datasets/owner/name/path" in caught.value.message


@pytest.mark.parametrize("name", ["..", "a/b", "UP", "", "."])
def test_a_claim_has_a_name(settings: Settings, name: str) -> None:
    assert failing(settings, f"pvc://{name}").exit_code in {ExitCode.BAD_CONFIGURATION, ExitCode.MISSING_INPUT}


def test_an_unreadable_claim_says_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Path, *, strict: bool = False) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "resolve", refuse)
    assert failing(settings, "pvc://data/x").exit_code is ExitCode.NO_PERMISSION


def test_files_of_other_formats_are_refused(settings: Settings) -> None:
    (settings.volumes / "data" / "rows.xlsx").write_text("")
    error = failing(settings, "pvc://data/rows.xlsx")
    assert error.exit_code is ExitCode.BAD_CONFIGURATION
    assert "found a .xlsx file, expected JSON Lines, a JSON list, CSV, Parquet or plain text" in error.message


def test_a_folder_of_several_formats_and_text_files_where_there_is_nothing_else(settings: Settings) -> None:
    def found(folder: str, *names: str) -> list[str]:
        (settings.volumes / "data" / folder).mkdir()
        for name in names:
            (settings.volumes / "data" / folder / name).write_text("")
        files = sources.fetch_files(DataFile(source=f"pvc://data/{folder}"), settings)
        return [file.name.rpartition("/")[2] for file in files]

    assert found("rows", "b.csv", "a.parquet", "c.json", "notes.txt", "d.xlsx") == ["a.parquet", "b.csv", "c.json"]
    assert found("texts", "2.txt", "1.TXT", "x.md") == ["1.TXT", "2.txt"]


def model_folder(path: Path, **without: bool) -> Path:
    path.mkdir(parents=True)
    files = {
        "config.json": json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}),
        "model.safetensors": "weights",
        "tokenizer.json": "{}",
        "tokenizer_config.json": json.dumps({"chat_template": "{{ messages }}"}),
    }
    for name, content in files.items():
        if not without.get(name.split(".")[0]):
            (path / name).write_text(content)
    return path


def test_a_model_folder_and_its_fingerprint(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    checked = check_model_folder(folder, "pvc://models/m", chat=True)
    assert (checked.model_type, checked.architecture, checked.weight_bytes) == ("llama", "LlamaForCausalLM", 7)
    before = fingerprint(folder)
    assert before.startswith("sha256:")
    (folder / "README.md").write_text("no part of the model")
    assert fingerprint(folder) == before
    (folder / "model.safetensors").write_text("Weights")
    assert fingerprint(folder) != before


def test_weights_that_a_folder_holds_twice_count_once(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "consolidated.safetensors").write_text("the same in another form, as in Mistral's folders")
    assert check_model_folder(folder, "pvc://models/m", chat=True).weight_bytes == 7


@pytest.mark.parametrize(
    ("change", "exit_code", "words"),
    [
        (lambda f: (f / "config.json").unlink(), ExitCode.MISSING_INPUT, "has no config.json"),
        (
            lambda f: [(f / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")],
            ExitCode.MISSING_INPUT,
            "model folder pvc://models/m has no tokenizer: expected tokenizer.json or tokenizer_config.json",
        ),
        (lambda f: (f / "model.safetensors").unlink(), ExitCode.MISSING_INPUT, "has no weights: found nothing"),
        (
            lambda f: (f / "model.safetensors").rename(f / "consolidated.safetensors"),
            ExitCode.MISSING_INPUT,
            "has no weights: found consolidated.safetensors, expected model.safetensors",
        ),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            ExitCode.BAD_CONFIGURATION,
            "as pytorch_model.bin only",
        ),
        (lambda f: (f / "tokenizer_config.json").write_text("{}"), ExitCode.MISSING_INPUT, "has no chat template"),
        (lambda f: (f / "config.json").write_text("{"), ExitCode.BAD_CONFIGURATION, "config.json is not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), ExitCode.BAD_CONFIGURATION, "not a JSON object"),
        (lambda f: (f / "config.json").write_text("{}"), ExitCode.BAD_CONFIGURATION, "has no model_type"),
        (
            lambda f: (f / "config.json").write_text('{"model_type": "x", "auto_map": {"AutoModel": "x.X"}}'),
            ExitCode.BAD_CONFIGURATION,
            "needs remote code: transformers knows no x itself",
        ),
        (
            lambda f: (f / "config.json").write_text(
                '{"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "text_config": {}, '
                '"vision_config": {}}'
            ),
            ExitCode.BAD_CONFIGURATION,
            "pvc://models/m is of llava, which reads more than text (vision_config), allowed: a model of text alone",
        ),
        (
            lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2.safetensors"}}'),
            ExitCode.MISSING_INPUT,
            "has no 'model-2.safetensors'",
        ),
        (
            lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../m.safetensors"}}'),
            ExitCode.BAD_CONFIGURATION,
            "must stay inside",
        ),
    ],
)
def test_what_is_wrong_with_a_model_folder(tmp_path, change, exit_code, words) -> None:
    folder = model_folder(tmp_path / "m")
    change(folder)
    with pytest.raises(TrainerError) as caught:
        check_model_folder(folder, "pvc://models/m", chat=True)
    assert caught.value.exit_code is exit_code
    assert words in caught.value.message


def test_a_model_of_a_claim_as_folder_and_as_archive(settings: Settings, tmp_path: Path) -> None:
    folder = model_folder(settings.volumes / "data" / "m")
    assert sources.fetch_model(ModelSource(source="pvc://data/m"), settings) == folder
    with tarfile.open(settings.volumes / "data" / "m.tar.gz", "w:gz") as archive:
        archive.add(folder, "m")
    unpacked = sources.fetch_model(ModelSource(source="pvc://data/m.tar.gz"), settings)
    assert unpacked.is_relative_to(settings.fetched)
    assert fingerprint(unpacked) == fingerprint(folder)
    assert sources.fetch_model(ModelSource(source="pvc://data/m.tar.gz"), settings) == unpacked
    with pytest.raises(TrainerError, match="expected a model folder"):
        sources.fetch_model(ModelSource(source="pvc://data/m/config.json"), settings)


def unsafe_member(name: str, **attributes: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(member, key, value)
    return member


@pytest.mark.parametrize(
    "member",
    [
        unsafe_member("../outside"),
        unsafe_member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        unsafe_member("device", type=tarfile.CHRTYPE),
    ],
)
def test_an_archive_cannot_write_outside(settings: Settings, member: tarfile.TarInfo) -> None:
    with tarfile.open(settings.volumes / "data" / "m.tar.gz", "w:gz") as archive:
        archive.addfile(member)
    with pytest.raises(TrainerError, match="unsafe archive") as caught:
        sources.fetch_model(ModelSource(source="pvc://data/m.tar.gz"), settings)
    assert caught.value.exit_code is ExitCode.BAD_CONFIGURATION
    assert not (settings.work / "outside").exists()
    assert not (settings.fetched / "outside").exists()


def test_broken_and_empty_archives(settings: Settings, tmp_path: Path) -> None:
    (settings.volumes / "data" / "m.tar.gz").write_bytes(b"no archive")
    with pytest.raises(TrainerError, match=r"not a readable \.tar\.gz"):
        sources.fetch_model(ModelSource(source="pvc://data/m.tar.gz"), settings)
    (tmp_path / "x").write_text("x")
    with tarfile.open(settings.volumes / "data" / "n.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "x", "x")
    with pytest.raises(TrainerError, match=r"no config\.json"):
        sources.fetch_model(ModelSource(source="pvc://data/n.tar.gz"), settings)


def test_a_truncated_archive_is_bad_data(settings: Settings) -> None:
    folder = settings.volumes / "data" / "m"
    model_folder(folder)
    (folder / "model.safetensors").write_bytes(os.urandom(100_000))
    path = settings.volumes / "data" / "m.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "m")
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(TrainerError, match=r"not a readable \.tar\.gz") as caught:
        sources.fetch_model(ModelSource(source="pvc://data/m.tar.gz"), settings)
    assert caught.value.exit_code is ExitCode.BAD_DATA
    assert hashlib.sha256(path.read_bytes()).hexdigest()
