"""Files: what is read, what is passed over, and what is said when something is wrong."""

import io
from pathlib import Path
from typing import Any

import pytest

from strop.cli.errors import CliError
from strop.cli.manifests import Bundle, load
from tests.support.cli import config_map, write
from tests.support.planning import manifest_of

POOL = {
    "apiVersion": "strop.dev/v1alpha1",
    "kind": "ComputePool",
    "metadata": {"name": "cpu"},
    "spec": {"cpuPerNode": 2, "memoryPerNode": "8Gi"},
}


def refusal(*files: Path | str) -> CliError:
    with pytest.raises(CliError) as refused:
        load(map(str, files))
    return refused.value


def loaded(tmp_path: Path, *documents: dict[str, Any], namespace: str | None = None) -> Bundle:
    return load([str(write(tmp_path / "all.yaml", *documents))], namespace)


def test_jobs_pools_and_config_maps_are_found_among_others(tmp_path: Path) -> None:
    others = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a"}}
    bundle = loaded(tmp_path, others, manifest_of("one"), POOL, config_map(), manifest_of("two"))
    assert [job.name for job in bundle.jobs] == ["one", "two"]
    assert [pool.name for pool in bundle.pools] == ["cpu"]
    assert list(bundle.config_maps) == [("team-a", "rows")]
    assert bundle.count == 3


def test_the_items_of_a_list_stand_for_it(tmp_path: Path) -> None:
    bundle = loaded(tmp_path, {"apiVersion": "v1", "kind": "List", "items": [manifest_of(), POOL]})
    assert (len(bundle.jobs), len(bundle.pools)) == (1, 1)


def test_an_object_without_a_namespace_is_in_the_one_that_is_given(tmp_path: Path) -> None:
    data = config_map()
    del data["metadata"]["namespace"]
    bundle = loaded(tmp_path, manifest_of(namespace=None), data, namespace="mine")
    assert bundle.jobs[0].namespace == "mine"
    assert list(bundle.config_maps) == [("mine", "rows")]
    assert loaded(tmp_path, manifest_of(namespace=None)).jobs[0].namespace == "default"


def test_binary_data_of_a_config_map_is_decoded(tmp_path: Path) -> None:
    data = {**config_map(a="text"), "binaryData": {"b": "AAH/"}}
    assert loaded(tmp_path, data).config_maps["team-a", "rows"] == {"a": b"text", "b": b"\x00\x01\xff"}


def test_the_standard_input_is_a_file_named_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("apiVersion: strop.dev/v1alpha1\nkind: FineTuneJob\n"))
    assert refusal("-").lines[0].startswith("standard input: metadata: missing")


def test_every_problem_of_every_file_is_a_line_with_its_file(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", manifest_of(method__lora__rank=0))
    second = write(tmp_path / "b.yaml", manifest_of("one", quantum=1), manifest_of("two", suspend="yes"))
    found = refusal(first, second)
    assert found.exit_code == 78
    assert found.lines[0] == f"{first}: spec.method.lora.rank: found 0, allowed: a whole number, 1 to 1024"
    assert found.lines[1].startswith(f"{second}: FineTuneJob one: spec.quantum: unknown field")
    assert found.lines[2] == f"{second}: FineTuneJob two: spec.suspend: found 'yes', allowed: true or false"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"apiVersion": "strop.dev/v1"}, "apiVersion: found 'strop.dev/v1', allowed: strop.dev/v1alpha1"),
        ({"apiVersion": "strop/v1alpha1"}, "apiVersion: found 'strop/v1alpha1', allowed: strop.dev/v1alpha1"),
        ({"kind": "FinetuneJob"}, "kind: found 'FinetuneJob', allowed: FineTuneJob, ComputePool, ModelVersion"),
        ({"kind": ["x"]}, "kind: found ['x'], allowed: FineTuneJob"),
        ({"metadata": {"generateName": "run-"}}, "metadata.name: missing"),
        ({"metadata": {"name": "A"}}, "metadata.name: a job's name has at most 50"),
    ],
)
def test_what_is_almost_a_job_is_not_passed_over(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    found = refusal(write(tmp_path / "a.yaml", {**manifest_of(), **change}))
    assert words in found.lines[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": {"../evil": "x"}}, "data.../evil: found '../evil', allowed: letters"),
        ({"data": {"..": "x"}}, "found '..', allowed: letters"),
        ({"data": {"a": 1}}, "data.a: found 1, allowed: text (write it in quotes)"),
        ({"binaryData": {"a": "***"}}, "binaryData.a: found no base64"),
        ({"metadata": None}, "metadata.name: missing"),
        ({"data": "{}\n"}, "ConfigMap rows: data: found text, allowed: an object, each key with its text"),
        ({"binaryData": ["a"]}, "ConfigMap rows: binaryData: found a list, allowed: an object"),
        ({"metadata": "rows"}, "metadata: found text, allowed: an object"),
        ({"metadata": {"name": "rows", "namespace": [1]}}, "metadata.namespace: found [1], allowed: 1 to 63 of a-z"),
    ],
)
def test_a_wrong_config_map_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    assert words in refusal(write(tmp_path / "a.yaml", {**config_map(), **change})).lines[0]


def test_wrong_yaml_is_told_with_line_and_column(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: 1\nb: [1\n", encoding="utf-8")
    found = refusal(file)
    assert found.exit_code == 78
    assert found.lines[0].startswith(f"{file}: line 3, column 1: expected ',' or ']'")


@pytest.mark.parametrize("text", ["just words", "[1, 2]", "3"])
def test_what_holds_no_object_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text, encoding="utf-8")
    assert "allowed: objects with apiVersion and kind" in refusal(file).lines[0]


@pytest.mark.parametrize("items", [5, "text", {"a": 1}, [manifest_of(), "text"]])
def test_a_list_of_something_else_than_objects_is_refused(tmp_path: Path, items: Any) -> None:
    file = write(tmp_path / "a.yaml", {"apiVersion": "v1", "kind": "List", "items": items})
    assert refusal(file).lines == (f"{file}: List: items: found {items!r}, allowed: a list of objects",)


@pytest.mark.parametrize("text", ["[" * 3000, "a: &a\n  <<: *a\n"])
def test_what_is_nested_without_end_is_refused_without_a_traceback(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text, encoding="utf-8")
    assert refusal(file).lines == (f"{file}: nested too deep to be read",)


def test_a_control_character_is_refused_without_a_traceback(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"a: \x00\n")
    assert refusal(file).lines == (f"{file}: found a control character, allowed: YAML or JSON, as text in UTF-8",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a:\n  b: 1\n c: 2\n", "line 3, column 2: the indentation does not fit the lines above"),
        ("a:\n    b: 1\n      c: 2\n", "line 3, column 8: found ': ' where no value can start"),
        ("a: text: more\n", "line 1, column 8: found ': ' where no value can start"),
        ("a:\n\tb: 1\n", "line 2, column 1: found a tab, allowed: spaces"),
        ("a: 1\nword\nb: 2\n", "the text before this place has no ': ' after its key"),
    ],
)
def test_common_slips_are_told_in_plain_words(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text, encoding="utf-8")
    assert words in refusal(file).lines[0]


def test_a_job_or_pool_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", manifest_of(), POOL, manifest_of(), POOL)
    assert refusal(file).lines == (
        f"{file}: FineTuneJob job: found a second job of this name in namespace team-a, allowed: one, since in a "
        "cluster the last one would replace the others",
        f"{file}: ComputePool cpu: found a second pool of this name, allowed: one, since in a "
        "cluster the last one would replace the others",
    )
    assert len(loaded(tmp_path, manifest_of(), manifest_of(namespace="team-b")).jobs) == 2


def test_a_job_in_a_namespace_that_cannot_be_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", manifest_of(namespace="Team_A"))
    assert "FineTuneJob job: metadata.namespace: found Team_A, allowed: 1 to 63 of a-z" in refusal(file).lines[0]


def test_a_file_that_cannot_be_read_is_missing_input(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.yaml").lines == (f"{tmp_path}/none.yaml: no such file",)
    assert refusal(tmp_path / "none.yaml").exit_code == 66
    assert "found a folder" in refusal(tmp_path).lines[0]
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\xfa")
    assert refusal(binary).lines == (f"{binary}: found a binary file, allowed: YAML or JSON, as text in UTF-8",)
    assert refusal(binary).exit_code == 78
