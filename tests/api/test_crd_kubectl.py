"""The resources as a person meets them with kubectl."""

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.apiserver import ApiServer
from tests.support.crd.documents import FULL, place
from tests.support.crd_schema import KINDS
from tests.support.kubectl import Kubectl
from tests.support.paths import REPOSITORY
from tests.support.waiting import wait_until

pytestmark = pytest.mark.api

NAMESPACE = "crd-kubectl"
TEN_LINES = """
apiVersion: strop.dev/v1alpha1
kind: FineTuneJob
metadata:
  name: ten-lines
spec:
  task: chat
  model: {source: hf://owner/name}
  dataset: {train: [{source: configmap://rows/train.jsonl}]}
"""


class Namespaced:
    """kubectl in one namespace."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl

    def apply(self, manifest: str, *arguments: str) -> str:
        """Returns what kubectl said, on either stream."""
        result = self._kubectl("apply", "-n", NAMESPACE, "-f", "-", *arguments, input=manifest)
        return result.stdout + result.stderr

    def get(self, *arguments: str) -> dict[str, Any]:
        return self._kubectl.get("-n", NAMESPACE, *arguments)

    def says(self, *arguments: str) -> str:
        return self._kubectl(*arguments, "-n", NAMESPACE).stdout

    def text(self, *arguments: str) -> str:
        return self._kubectl(*arguments, "-n", NAMESPACE, check=True).stdout


@pytest.fixture(scope="module")
def kubectl(apiserver: ApiServer) -> Iterator[Namespaced]:
    apiserver.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds"), check=True)
    apiserver.kubectl.wait("condition=Established", *(f"crd/{plural}.strop.dev" for plural in KINDS.values()))
    apiserver.kubectl("create", "namespace", NAMESPACE, check=True)
    yield Namespaced(apiserver.kubectl)
    apiserver.kubectl("delete", "namespace", NAMESPACE, "--wait=false", check=True)


def with_line(line: str) -> str:
    return f"{TEN_LINES}  {line}\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("trainning: {epochs: 1}", 'unknown field "spec.trainning"'),
        ("training: {learning_rate: 0.1}", 'unknown field "spec.training.learning_rate"'),
        ("method: {lora: {rank: 0}}", "spec.method.lora.rank in body should be greater than or equal to 1"),
        ("method: {lora: {rank: eight}}", "spec.method.lora.rank in body must be of type integer"),
        ('training: {learningRate: "2e-4"}', "spec.training.learningRate in body must be of type number"),
        ("training: {learningRate: 0}", "spec.training.learningRate in body should be greater than 0"),
        ("compute: {resources: {memory: 8GB}}", "found '8GB', allowed: a quantity such as 8Gi or 8G"),
        ("training: {precision: fp16}", "Forbidden: found fp16; this version of Strop trains in auto, bf16, fp32"),
        ("evaluation: {minimum: {beauty: 1}}", "found beauty; chat is measured by eval_loss, perplexity"),
        (
            "evaluation: {minimum: {exact_match: 1}, generateRows: 0}",
            "spec.evaluation.generateRows: Invalid value: must be at least 1 for exact_match",
        ),
        ("training: {epochs: 1, maxSteps: 5}", "spec.training.maxSteps: Forbidden: not together with epochs"),
    ],
)
def test_bad_input_gets_a_clear_answer(kubectl: Namespaced, line: str, said: str) -> None:
    assert said in kubectl.apply(with_line(line), "--dry-run=server")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("gpt2", "found 'gpt2', allowed: hf://owner/name, pvc://claim/path or https://host/archive.tar.gz"),
        ("https://user:secret@host/model.tar.gz", "allowed: hf://owner/name, pvc://claim/path or https://"),
        ("https://host/model.tar.gz", "spec.model.sha256: Required value: an https:// source needs its hash"),
        ("pvc://claim/../../etc", "spec.model.source: Invalid value: must not climb out of its folder"),
    ],
)
def test_a_bad_source_gets_a_clear_answer(kubectl: Namespaced, source: str, said: str) -> None:
    assert said in kubectl.apply(TEN_LINES.replace("hf://owner/name", source), "--dry-run=server")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "examples").rglob("*.yaml")), ids=lambda path: str(path.name))
def test_takes_the_resources_in_the_examples(kubectl: Namespaced, path: Path) -> None:
    documents = re.split(r"^---$", path.read_text(), flags=re.MULTILINE)
    ours = [text for text in documents if re.search(r"^apiVersion: strop\.dev/", text, re.MULTILINE)]
    for text in ours:
        placed = re.sub(r"^  namespace: .*$", f"  namespace: {NAMESPACE}", text, flags=re.MULTILINE)
        assert "(server dry run)" in kubectl.apply(placed, "--dry-run=server")


def test_a_learning_rate_in_e_notation_is_a_number(kubectl: Namespaced) -> None:
    answer = kubectl.apply(with_line("training: {learningRate: 2e-4}"), "--dry-run=server", "-o", "json")
    assert json.loads(answer)["spec"]["training"]["learningRate"] == 0.0002


def test_explain_tells_what_a_field_is(kubectl: Namespaced) -> None:
    # The server publishes a new schema a moment after it serves it.
    explained = functools.partial(kubectl.says, "explain", "ftj.spec.method.lora.rank")
    wait_until(lambda: "FIELD: rank" in explained(), "the schema is published")
    rank = explained()
    assert "FIELD: rank <integer>" in rank
    assert "Rank r of the adapter's matrices" in rank
    task = kubectl.text("explain", "finetunejobs.spec.task")
    assert "ENUM:\n    chat\n" in task
    assert "-required-" in kubectl.text("explain", "cpool.spec")
    assert "Name in the registry" in kubectl.text("explain", "mv.spec.model")


@pytest.mark.parametrize("flags", [(), ("--server-side",)], ids=["client-side", "server-side"])
def test_an_identical_job_applied_again_changes_nothing(kubectl: Namespaced, flags: tuple[str, ...]) -> None:
    manifest = TEN_LINES.replace("ten-lines", "again" + "".join(flags).replace("--", "-"))
    name = json.loads(kubectl.apply(manifest, *flags, "-o", "json"))["metadata"]["name"]
    first = kubectl.get("ftj", name)["metadata"]
    kubectl.apply(manifest, *flags)
    second = kubectl.get("ftj", name)["metadata"]
    assert first["generation"] == 1
    assert (second["generation"], second["resourceVersion"]) == (1, first["resourceVersion"])


def test_spec_and_status_are_written_apart(kubectl: Namespaced, apiserver: ApiServer) -> None:
    manifest = place(FULL["FineTuneJob"], "metadata", {"name": "apart", "namespace": NAMESPACE})
    assert "created" in kubectl.apply(json.dumps(manifest))
    created = kubectl.get("ftj", "apart")
    assert "status" not in created

    status = {"status": {"phase": "Running"}, "spec": {"suspend": False}}
    patch = ("patch", "ftj", "apart", "--type=merge", "--subresource=status", "-p", json.dumps(status))
    kubectl.text(*patch)
    after_status = kubectl.get("ftj", "apart")
    assert after_status["status"] == {"phase": "Running"}
    assert after_status["spec"] == created["spec"]
    assert after_status["metadata"]["generation"] == 1

    kubectl.text("patch", "ftj", "apart", "--type=merge", "-p", json.dumps({**status, "status": {"phase": "Failed"}}))
    after_spec = kubectl.get("ftj", "apart")
    assert after_spec["spec"]["suspend"] is False
    assert after_spec["status"] == {"phase": "Running"}
    assert after_spec["metadata"]["generation"] == 2


def test_columns(kubectl: Namespaced, apiserver: ApiServer) -> None:
    job = place(FULL["FineTuneJob"], "metadata", {"name": "columns", "namespace": NAMESPACE})
    kubectl.apply(json.dumps(job))
    status = json.dumps({"status": job["status"]})
    kubectl.text("patch", "ftj", "columns", "--type=merge", "--subresource=status", "-p", status)
    assert rows(kubectl.text("get", "ftj", "columns")) == [
        ["NAME", "MODEL", "METHOD", "PHASE", "PROGRESS", "LOSS", "VERSION", "AGE"],
        ["columns", "hf://owner/name", "lora", "Running", "30%", "2.1", "1", "0s"],
    ]
    assert rows(kubectl.text("get", "ftj", "columns", "-o", "wide"))[0] == [
        *["NAME", "MODEL", "METHOD", "PHASE", "PROGRESS", "LOSS", "VERSION", "POOL", "ETA", "MESSAGE", "AGE"]
    ]

    kubectl.apply(json.dumps(FULL["ComputePool"]))
    assert rows(kubectl.text("get", "cpool", "full"))[1][:6] == ["full", "nvidia.com/gpu", "2", "16", "64Gi", "2"]
    apiserver.kubectl("delete", "cpool", "full", check=True)

    kubectl.apply(json.dumps(place(FULL["ModelVersion"], "metadata", {"name": "columns", "namespace": NAMESPACE})))
    assert rows(kubectl.text("get", "mv", "columns"))[1][:6] == [
        *["columns", "answers", "1", "chat", "lora", "hf://owner/name"]
    ]

    listed = kubectl.text("get", "strop", "-o", "name").split()
    assert {"finetunejob.strop.dev/columns", "modelversion.strop.dev/columns"} <= set(listed)


def rows(table: str) -> list[list[str]]:
    """Returns the cells of a table, in which a cell has no two blanks together; ages count as 0s."""
    lines = [[cell for cell in line.split("  ") if cell.strip()] for line in table.splitlines()]
    return [
        [("0s" if cell.strip().rstrip("s").isdigit() and cell.strip().endswith("s") else cell.strip()) for cell in line]
        for line in lines
    ]


def test_wait_sees_the_conditions(kubectl: Namespaced) -> None:
    kubectl.apply(TEN_LINES.replace("ten-lines", "waited-for"))
    condition = {**FULL["FineTuneJob"]["status"]["conditions"][0], "type": "Complete", "reason": "Complete"}
    status = json.dumps({"status": {"conditions": [condition]}})
    kubectl.text("patch", "ftj", "waited-for", "--type=merge", "--subresource=status", "-p", status)
    assert "condition met" in kubectl.text("wait", "--for=condition=Complete", "ftj/waited-for", "--timeout=5s")


def test_two_managers_own_conditions_of_their_own(kubectl: Namespaced) -> None:
    kubectl.apply(TEN_LINES.replace("ten-lines", "shared"))
    condition = FULL["FineTuneJob"]["status"]["conditions"][0]
    for manager in ("first", "second"):
        document = {
            "apiVersion": "strop.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": "shared"},
            "status": {"conditions": [{**condition, "type": manager.capitalize()}]},
        }
        said = kubectl.apply(
            json.dumps(document), "--server-side", "--subresource=status", f"--field-manager={manager}"
        )
        assert "serverside-applied" in said
    conditions = kubectl.get("ftj", "shared")["status"]["conditions"]
    assert {each["type"] for each in conditions} == {"First", "Second"}
