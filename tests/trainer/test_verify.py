"""`strop verify`: a version is as it was published, or it is told what is not."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from strop_trainer.manifest import Manifest, dump_manifest, list_files
from strop_trainer.proof import ProofResult
from strop_trainer.registry import verify
from tests.support.records import MEASURED, publish_version


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return publish_version(tmp_path / "registry", tmp_path).path


def rewrite_manifest(version: Path) -> None:
    """Make the manifest agree with the files again, so that only their content is wrong."""
    path = version / "manifest.json"
    manifest = Manifest.model_validate_json(path.read_bytes())
    path.chmod(0o644)
    path.write_bytes(dump_manifest(manifest.model_copy(update={"files": list_files(version)})))


def edit_json(version: Path, name: str, change: Callable[[dict[str, object]], object]) -> None:
    path = version / name
    document = json.loads(path.read_text())
    change(document)
    path.chmod(0o644)
    path.write_text(json.dumps(document))
    rewrite_manifest(version)


def test_what_was_published_is_as_published(version: Path) -> None:
    assert verify(version) == []
    assert verify(version.parent) == []


def test_one_flipped_bit_is_found(version: Path) -> None:
    path = version / "adapter" / "adapter_model.safetensors"
    path.chmod(0o644)
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    (problem,) = verify(version)
    assert problem.startswith("adapter/adapter_model.safetensors: found sha256 ")


def test_a_file_of_another_size_is_found(version: Path) -> None:
    path = version / "adapter" / "adapter_model.safetensors"
    path.chmod(0o644)
    path.write_bytes(b"w")
    assert verify(version) == ["adapter/adapter_model.safetensors: found 1 bytes, expected 7"]


def test_a_missing_file_is_found(version: Path) -> None:
    (version / "adapter" / "adapter_model.safetensors").unlink()
    assert verify(version) == ["adapter/adapter_model.safetensors: missing"]


def test_an_added_file_is_found(version: Path) -> None:
    (version / "adapter" / "extra.bin").write_text("x")
    assert verify(version) == ["adapter/extra.bin: not in the manifest"]


def test_a_link_in_place_of_a_file_is_found(version: Path, tmp_path: Path) -> None:
    path = version / "adapter" / "adapter_model.safetensors"
    (tmp_path / "elsewhere").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert verify(version) == ["adapter/adapter_model.safetensors: not a plain file"]


def test_a_folder_without_a_manifest_is_no_version(version: Path, tmp_path: Path) -> None:
    (version / "manifest.json").unlink()
    assert verify(version) == ["manifest.json: missing: not a published version"]
    assert verify(tmp_path / "absent") == [f"{tmp_path / 'absent'}: no such folder"]


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b", "./a", ""])
def test_a_manifest_that_points_outside_is_refused(version: Path, path: str) -> None:
    def point_outside(document: dict[str, object]) -> None:
        document["files"] = [{"path": path, "size": 0, "sha256": "0" * 64}]

    manifest = version / "manifest.json"
    document = json.loads(manifest.read_text())
    point_outside(document)
    manifest.chmod(0o644)
    manifest.write_text(json.dumps(document))
    assert any("inside the version" in problem for problem in verify(version))


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("training.json", lambda d: d.pop("planDigest"), "training.json: planDigest: Field required"),
        ("training.json", lambda d: d.update(steps="many"), "training.json: steps: Input should be a valid integer"),
        ("dataset.json", lambda d: d.update(fingerprint="md5:1"), "dataset.json: fingerprint: String should match"),
        ("proof.json", lambda d: d.update(schema="other"), "proof.json: schema: Input should be"),
        ("provenance.json", lambda d: d.update(extra=1), "provenance.json: extra: Extra inputs are not permitted"),
    ],
)
def test_documents_are_held_to_their_schema(
    version: Path, name: str, change: Callable[[dict[str, object]], object], expected: str
) -> None:
    edit_json(version, name, change)
    (problem,) = verify(version)
    assert problem.startswith(expected)


def test_broken_metric_lines_are_told_by_number(version: Path) -> None:
    path = version / "metrics.jsonl"
    path.chmod(0o644)
    path.write_text('{"step": 1}\n{"step": \n')
    rewrite_manifest(version)
    (problem,) = verify(version)
    assert problem.startswith("metrics.jsonl: line 2: ")


def test_provenance_that_speaks_of_other_files_is_found(version: Path) -> None:
    path = version / "adapter" / "adapter_model.safetensors"
    path.chmod(0o644)
    path.write_bytes(b"changed")
    rewrite_manifest(version)
    assert verify(version) == [
        "provenance.json: subject adapter/adapter_model.safetensors has another digest than the manifest"
    ]


def test_a_version_without_its_documents_is_incomplete(version: Path) -> None:
    (version / "README.md").unlink()
    rewrite_manifest(version)
    assert verify(version) == ["README.md: missing"]


def test_an_unproven_export_should_not_be_there(tmp_path: Path) -> None:
    failed = ProofResult("onnx", "fp32", replace(MEASURED, token_agreement=0.5), ("token agreement: found 0.5",))
    version = publish_version(tmp_path / "registry", tmp_path, proofs=[failed]).path
    assert verify(version) == ["onnx: was published without passing its proof"]


def test_an_index_that_lags_behind_is_found(version: Path) -> None:
    index = version.parent / "index.json"
    document = json.loads(index.read_text())
    document["aliases"]["latest"] = 7
    index.write_text(json.dumps(document))
    assert verify(version.parent) == ["index.json: does not agree with the versions"]
    index.unlink()
    assert verify(version.parent) == ["index.json: missing or not valid"]


def test_a_model_folder_tells_of_each_version(version: Path, tmp_path: Path) -> None:
    publish_version(tmp_path / "registry", tmp_path, uid="uid-2")
    (version.parent / "2" / "README.md").unlink()
    assert verify(version.parent) == ["2/README.md: missing"]


def test_verifying_needs_no_training_library(version: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from strop_trainer.registry import verify\n"
        f"assert verify(Path({str(version)!r})) == []\n"
        "print([name for name in ('torch', 'numpy', 'transformers', 'onnx', 'onnxruntime') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout == "[]\n"
