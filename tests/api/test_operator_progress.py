"""Progress: what a trainer reports is soon in the status, and nobody reports for another's job."""

import json
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.apiserver import ApiServer
from tests.support.operator import OperatorProcess
from tests.support.waiting import wait_until
from tests.support.world import World

pytestmark = pytest.mark.api

AUDIENCE = "progress.strop.dev"


@pytest.fixture(scope="module")
def world(installed: ApiServer, operator: OperatorProcess) -> World:
    return World(installed, "team-progress")


def authority(world: World, job: str) -> str:
    """The certificates that the trainer of a job finds in its pod."""
    data: dict[str, str] = world.core.read_namespaced_config_map(f"{job}-plan", world.namespace).data
    return data["ca.crt"]


def token(world: World, pod: str, audience: str = AUDIENCE) -> str:
    """The token that the kubelet would project into a pod."""
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod}")
    arguments = ("create", "token", "default", "-n", world.namespace, f"--audience={audience}", *bound)
    return world.kubectl(*arguments, check=True).stdout.strip()


def address(operator: OperatorProcess, world: World, job: str) -> str:
    path = f"/v1alpha1/namespaces/{world.namespace}/finetunejobs/{job}/progress"
    return f"https://localhost:{operator.progress_port}{path}"


def post(url: str, bundle: str, bearer: str | None, body: bytes) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {bearer}"} if bearer is not None else {}
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")  # noqa: S310
    context = ssl.create_default_context(cadata=bundle)
    try:
        with urllib.request.urlopen(request, timeout=5, context=context) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def report(percent: int, **metrics: Any) -> bytes:
    values = [{"name": name, "value": str(value)} for name, value in metrics.items()]
    return json.dumps({"trainerStatus": {"progressPercentage": percent, "metrics": values}}).encode()


def trains(world: World, job: str) -> dict[str, Any]:
    world.apply(job)
    pod = world.first_pod(job)
    world.play_kubelet(pod, "Running")
    world.reaches(job, "Running")
    return pod


def test_stock_transformers_reports_to_the_status_within_seconds(
    world: World, operator: OperatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = trains(world, "stock")
    (tmp_path / "ca.crt").write_text(authority(world, "stock"))
    (tmp_path / "token").write_text(token(world, pod["metadata"]["name"]))
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", address(operator, world, "stock"))
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_CA_CERT", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_TOKEN", str(tmp_path / "token"))
    from transformers.integrations import KubeflowCallback  # noqa: PLC0415 - seconds to import

    callback = KubeflowCallback()
    monkeypatch.setattr(KubeflowCallback, "_MIN_UPDATE_INTERVAL", 0.0)
    state = SimpleNamespace(is_world_process_zero=True, max_steps=50, global_step=0, epoch=0.0)
    callback.on_train_begin(None, state, None)
    state.global_step, state.epoch = 21, 0.42
    callback.on_log(None, state, None, logs={"loss": 1.25, "learning_rate": 1e-4})
    begin = time.monotonic()
    callback.on_step_end(None, state, None)
    wait_until(lambda: world.status("stock").get("progress", {}).get("step") == 21, "the step is in the status", 10)
    assert time.monotonic() - begin < 10
    progress = world.status("stock")["progress"]
    assert (progress["display"], progress["loss"], progress["totalSteps"]) == ("42%", "1.2500", 50)
    columns = world.kubectl("get", "ftj", "stock", "-n", world.namespace, check=True).stdout
    assert "42%" in columns
    assert "1.2500" in columns


def test_a_stage_is_shown_and_becomes_the_phase(world: World, operator: OperatorProcess) -> None:
    pod = trains(world, "staged")
    url, bundle = address(operator, world, "staged"), authority(world, "staged")
    bearer = token(world, pod["metadata"]["name"])
    assert post(url, bundle, bearer, report(100, stage="train", current_step=10, loss=0.5))[0] == 200
    wait_until(lambda: world.status("staged").get("progress", {}).get("step") == 10, "training is shown")
    assert post(url, bundle, bearer, report(100, stage="prove"))[0] == 200
    status = world.reaches("staged", "Publishing")
    assert status["message"] == "proving the exports"
    assert status["progress"]["display"] == "prove"
    assert status["progress"]["loss"] == "0.5000"


def test_nobody_reports_for_anothers_job(world: World, operator: OperatorProcess) -> None:
    mine, theirs = trains(world, "mine"), trains(world, "theirs")
    bundle = authority(world, "mine")
    good = token(world, mine["metadata"]["name"])
    body = report(50, stage="train")
    assert post(address(operator, world, "theirs"), bundle, good, body)[0] == 403
    for bearer in (None, "", "nonsense", "x" * 5000):
        assert post(address(operator, world, "mine"), bundle, bearer, body)[0] == 401
    wrong_audience = token(world, mine["metadata"]["name"], "https://kubernetes.default.svc.cluster.local")
    assert post(address(operator, world, "mine"), bundle, wrong_audience, body)[0] == 401
    account = world.kubectl("create", "token", "default", "-n", world.namespace, f"--audience={AUDIENCE}", check=True)
    assert post(address(operator, world, "mine"), bundle, account.stdout.strip(), body)[0] == 401
    assert "progress" not in world.status("theirs")
    assert theirs


def test_a_pod_that_only_carries_the_label_is_no_trainer(world: World, operator: OperatorProcess) -> None:
    trains(world, "framed")
    spec = {"containers": [{"name": "trainer", "image": "x"}]}
    metadata = {"name": "impostor", "labels": {"strop.dev/job": "framed"}}
    world.core.create_namespaced_pod(world.namespace, {"metadata": metadata, "spec": spec})
    answer = post(address(operator, world, "framed"), authority(world, "framed"), token(world, "impostor"), report(50))
    assert answer[0] == 401


@pytest.mark.parametrize("body", [b"", b"{}", b"x" * 70_000, report(101)])
def test_what_is_no_report_is_refused(world: World, operator: OperatorProcess, body: bytes) -> None:
    name = "refusing"
    pod = world.first_pod(name) if world.job(name) else trains(world, name)
    url, bundle = address(operator, world, name), authority(world, name)
    assert post(url, bundle, token(world, pod["metadata"]["name"]), body)[0] in (400, 413)


def test_a_flood_of_reports_becomes_a_trickle_of_writes(world: World, operator: OperatorProcess) -> None:
    pod = trains(world, "flood")
    url, bundle = address(operator, world, "flood"), authority(world, "flood")
    bearer = token(world, pod["metadata"]["name"])
    before = int(world.job("flood")["metadata"]["resourceVersion"])
    begin = time.monotonic()
    for step in range(200):
        assert post(url, bundle, bearer, report(step // 2, current_step=step, stage="train"))[0] == 200
    seconds = time.monotonic() - begin
    wait_until(lambda: world.status("flood").get("progress", {}).get("step") == 199, "the last one is written")
    writes = [
        event
        for event in world.audit()
        if event["verb"] == "patch" and event["requestURI"].startswith(f"{world.path('flood')}/status")
    ]
    assert len(writes) < 8 + 2 * seconds / 0.5
    assert int(world.job("flood")["metadata"]["resourceVersion"]) > before


def test_a_complete_job_shows_a_hundred_percent_whatever_comes_late(world: World, operator: OperatorProcess) -> None:
    from tests.support.jobs import termination  # noqa: PLC0415

    pod = trains(world, "ended")
    url, bundle = address(operator, world, "ended"), authority(world, "ended")
    bearer = token(world, pod["metadata"]["name"])
    assert post(url, bundle, bearer, report(90, stage="train", current_step=9))[0] == 200
    wait_until(lambda: world.status("ended").get("progress", {}).get("display") == "90%", "90%")
    world.play_end(pod, 0, termination(model="ended", path="team-progress/ended/1").dump())
    world.reaches("ended", "Complete")
    assert post(url, bundle, bearer, report(95, stage="train", current_step=10))[0] == 200
    time.sleep(2)
    assert world.status("ended")["progress"]["display"] == "100%"
