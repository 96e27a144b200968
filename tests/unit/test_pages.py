"""What the how-to pages show: manifests are planned, fragments are parts of a job, options and reasons are there."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.main import get_command

from strop.api.finetunejob import FineTuneJob
from strop.api.names import API_VERSION, Reason
from strop.cli.main import app
from strop.cli.manifests import load
from strop.decide.pods import REASON_OF_EXIT
from strop.planning.resolve import resolve
from strop_trainer.exit_codes import NON_RETRIABLE, ExitCode
from strop_trainer.plan import METRICS
from tests.support.cli import runner
from tests.support.helm import CHART, helm
from tests.support.paths import REPOSITORY
from tests.support.planning import gpu_pool_of, manifest_of, pool_of

HOW_TO = REPOSITORY / "docs" / "how-to"
PAGES = sorted(HOW_TO.glob("*.md"))
ROOMY = [pool_of(memory_per_node="900Gi"), gpu_pool_of(memory="80Gi", memory_per_node="900Gi")]
BLOCK = re.compile(r"```yaml\n(.*?)```", flags=re.DOTALL)


def yaml_blocks() -> list[tuple[str, str]]:
    found = [(page.name, block) for page in PAGES for block in BLOCK.findall(page.read_text(encoding="utf-8"))]
    return [(name, block) for name, block in found if not block.startswith("# values.yaml")]


def shell_lines(page: Path) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]


MANIFESTS = [(name, block) for name, block in yaml_blocks() if "apiVersion:" in block]
FRAGMENTS = [(name, block) for name, block in yaml_blocks() if "apiVersion:" not in block]


@pytest.mark.parametrize(("page", "block"), [found for found in MANIFESTS if API_VERSION in found[1]])
def test_a_manifest_is_one_that_admission_takes_and_the_planner_can_plan(page: str, block: str, tmp_path: Path) -> None:
    file = tmp_path / "shown.yaml"
    file.write_text(block, encoding="utf-8")
    bundle = load([str(file)])
    assert bundle.count == len([each for each in yaml.safe_load_all(block) if each["apiVersion"] == API_VERSION])
    for job in bundle.jobs:
        assert resolve(job, [*ROOMY, *bundle.pools]).digest


@pytest.mark.parametrize(("page", "block"), [found for found in MANIFESTS if API_VERSION not in found[1]])
def test_a_manifest_of_kubernetes_is_parts_that_belong_together(page: str, block: str) -> None:
    documents = {document["kind"]: document for document in yaml.safe_load_all(block)}
    pod = documents["Pod"]
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"]]
    assert claims == [documents["PersistentVolumeClaim"]["metadata"]["name"]]
    (container,) = pod["spec"]["containers"]
    assert container["volumeMounts"][0]["mountPath"] == f"/volumes/{claims[0]}"
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


@pytest.mark.parametrize(("page", "block"), FRAGMENTS)
def test_a_fragment_is_a_part_of_a_job(page: str, block: str) -> None:
    manifest = manifest_of()
    manifest["spec"] |= yaml.safe_load(block)
    job = FineTuneJob.model_validate(manifest)
    assert job.spec.model_dump(exclude_unset=True).keys() >= {"task", "model", "dataset"}


def options() -> dict[str, set[str]]:
    """Returns the options of each command of `strop`."""
    root: Any = get_command(app)
    found = {}
    for name, command in root.commands.items():
        context = typer.Context(command, info_name=name)
        parameters = command.get_params(context)
        found[name] = {option for each in parameters for option in each.opts if option.startswith("-")}
    return found


@pytest.mark.parametrize(
    "line", sorted({line for page in PAGES for line in shell_lines(page) if line.startswith("strop ")})
)
def test_a_command_has_the_options_that_are_shown(line: str) -> None:
    _, command, *words = shlex.split(line)
    assert {word for word in words if word.startswith("-")} - options()[command] == set()


def test_the_gpu_page_shows_what_a_chart_takes_as_a_pool() -> None:
    page = (HOW_TO / "gpu-pools.md").read_text(encoding="utf-8")
    (pool,) = [found for found in map(yaml.safe_load, BLOCK.findall(page)) if found.get("kind") == "ComputePool"]
    values = {"pools": [{"name": pool["metadata"]["name"], "spec": pool["spec"]}]}
    assert "kind: ComputePool" in helm("template", "strop", CHART, values=values).stdout


def rows_of(page: str) -> list[list[str]]:
    text = (HOW_TO / page).read_text(encoding="utf-8")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


SAID_OTHERWISE = {
    *("Planned", "Created", "Training", "Preempted", "Restarted", "Resumed", "Published", "Complete"),
    *("Finished", "Deleting", "Progressing"),
}
"""Reasons of a job that goes on, or has ended well."""


def test_every_reason_of_a_job_that_waits_or_failed_has_a_line() -> None:
    known = {value for name, value in vars(Reason).items() if name.isupper()}
    told = {word for row in rows_of("waits-and-failures.md") for word in re.findall(r"`([A-Z]\w+)`", row[0])}
    assert told - known == set()
    assert known - told == SAID_OTHERWISE


def test_the_exit_codes_of_the_page_are_those_of_the_trainer() -> None:
    told = {
        int(row[1].split()[0]): row[0].strip("`")
        for row in rows_of("waits-and-failures.md")
        if len(row) == 3 and row[1][:1].isdigit()
    }
    by_name = {int(code): reason for code, reason in REASON_OF_EXIT.items() if code != ExitCode.PREEMPTED}
    assert {code: reason for code, reason in told.items() if code in by_name} == by_name
    assert set(told) - set(by_name) == {ExitCode.INTERNAL, 128 + 9}
    assert ExitCode.PREEMPTED not in NON_RETRIABLE


def metric_rows() -> dict[str, str]:
    """Returns the last cell of each task's row in the datasets page."""
    tasks = [row for row in rows_of("datasets.md") if row[0] in METRICS and len(row) == 4]
    return {row[0]: row[3] for row in tasks}


@pytest.mark.parametrize("task", METRICS)
def test_the_datasets_page_names_the_metrics_of_each_task(task: str) -> None:
    told = set(re.findall(r"\b[a-z][a-z0-9_]*[a-zA-Z0-9]\b", metric_rows()[task]))
    of_all = {"eval_loss", "perplexity", "token_accuracy"}
    metrics = {name: value for name, value in METRICS.items() if name == task}
    names = {name for found in metrics.values() for name in found.names} - of_all
    assert names <= told, "docs/how-to/datasets.md: the table of tasks"
    others = {name for found in METRICS.values() for name in found.names} - names
    assert told & others == set(), "docs/how-to/datasets.md: the table of tasks"


def test_the_memory_of_an_8b_qlora_is_what_is_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    page = (HOW_TO / "memory.md").read_text(encoding="utf-8")
    job = tmp_path / "job.yaml"
    job.write_text(BLOCK.findall(page)[0], encoding="utf-8")
    shown = runner(monkeypatch, capfd)("estimate", job).out
    total = re.search(r"^ *total +\S+ GiB +(\S+) GiB", shown, flags=re.M)
    beside = re.search(r"^ *the pod beside it +(\S+) GiB", shown, flags=re.M)
    assert total
    assert beside
    assert (
        f"estimated at {float(total[1]):.0f} GiB on the\naccelerator and {float(beside[1]):.0f} GiB in the pod" in page
    )
