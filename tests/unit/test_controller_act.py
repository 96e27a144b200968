"""The shell's steps against a client that only remembers: what is sent, in which order, and what is not."""

from typing import Any

import pytest

from strop.api.finetunejob import FineTuneJobStatus, Progress
from strop.cluster.client import ApiError
from strop.controller.act import act, status_differs
from strop.controller.events import EventRecorder
from strop.decide.decision import Apply, Create, Decision, Delete, EventNote, Patch, SetFinalizer
from tests.support.jobs import JOB_UID, make_child, make_job


class Remembering:
    """A client that remembers its calls and fails where it is told to."""

    def __init__(self, failures: dict[str, ApiError] | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self._failures = failures or {}

    def _remember(self, verb: str, what: Any) -> None:
        self.calls.append((verb, what))
        if error := self._failures.get(verb):
            raise error

    async def apply(self, manifest: Any, *, subresource: str | None = None, **_: Any) -> None:
        self._remember(f"apply {subresource}" if subresource else "apply", manifest)

    async def create(self, manifest: Any) -> None:
        self._remember(f"create {manifest['kind']}", manifest)

    async def patch(self, target: Any, body: Any) -> None:
        self._remember("patch", (target["metadata"]["name"], body))

    async def delete(self, target: Any, propagation: str = "Background") -> None:
        self._remember("delete", (target["metadata"]["name"], propagation))

    async def request(self, method: str, path: str, *, body: Any = None, **_: Any) -> None:
        self._remember(method, body or path)

    def forget_failures(self) -> None:
        self._failures = {}


async def carry_out(decision: Decision, job: Any = None, client: Remembering | None = None) -> Remembering:
    client = client or Remembering()
    await act(client, EventRecorder(client, "pod"), job or make_job(), decision)  # type: ignore[arg-type]
    return client


NOTE = EventNote("Normal", "Created", "it is")


async def test_actions_come_first_then_the_status_then_events() -> None:
    job = make_child()
    actions = (SetFinalizer(present=True), Apply(job), Create(job), Patch(job, {"spec": {}}), Delete(job, "Foreground"))
    client = await carry_out(Decision(actions, FineTuneJobStatus(phase="Starting"), (NOTE,)))
    verbs = [verb for verb, _ in client.calls]
    assert verbs == ["apply", "apply", "create Job", "patch", "delete", "apply status", "create Event"]
    assert client.calls[0][1]["metadata"]["finalizers"] == ["strop.dev/cleanup"]
    assert client.calls[0][1]["metadata"]["uid"] == JOB_UID
    assert client.calls[5][1]["metadata"]["uid"] == JOB_UID


async def test_the_finalizers_of_others_stay() -> None:
    job = make_job(finalizers=["other/one", "strop.dev/cleanup"])
    client = await carry_out(Decision((SetFinalizer(present=False),)), job)
    assert client.calls == [("patch", (job["metadata"]["name"], {"metadata": {"finalizers": ["other/one"]}}))]


async def test_a_step_that_fails_ends_it_before_the_status_tells_of_it() -> None:
    client = Remembering({"create Job": ApiError(409, "AlreadyExists", "x")})
    with pytest.raises(ApiError):
        await carry_out(Decision((Create(make_child()),), FineTuneJobStatus(phase="Starting"), (NOTE,)), client=client)
    assert [verb for verb, _ in client.calls] == ["create Job"]


async def test_a_status_that_stands_is_not_written() -> None:
    job = make_job(status={"phase": "Running", "conditions": [], "progress": {"stage": "train", "display": "3%"}})
    client = await carry_out(Decision(status=FineTuneJobStatus(phase="Running")), job)
    assert client.calls == []


@pytest.mark.parametrize(
    ("wanted", "found", "differs"),
    [
        ({"phase": "A"}, {}, True),
        ({"phase": "A"}, {"phase": "A"}, False),
        ({"phase": "A"}, {"phase": "A", "progress": {"step": 3}}, False),
        ({"phase": "A"}, {"phase": "A", "message": "old"}, True),
        ({"phase": "A", "progress": {"display": "100%"}}, {"phase": "A", "progress": {"display": "publish"}}, True),
        ({"phase": "A", "progress": {"display": "100%"}}, {"phase": "A"}, True),
        (
            {"phase": "A", "progress": {"display": "100%"}},
            {"phase": "A", "progress": {"display": "100%", "step": 3}},
            False,
        ),
    ],
)
def test_progress_is_another_writers_but_for_the_display_of_a_complete_job(
    wanted: Any, found: Any, differs: bool
) -> None:
    assert status_differs(wanted, found) is differs


async def test_a_complete_jobs_display_is_written() -> None:
    client = await carry_out(Decision(status=FineTuneJobStatus(phase="Complete", progress=Progress(display="100%"))))
    assert client.calls[0][1]["status"] == {"phase": "Complete", "conditions": [], "progress": {"display": "100%"}}


async def test_what_is_said_again_is_counted() -> None:
    client = Remembering()
    recorder = EventRecorder(client, "pod")  # type: ignore[arg-type]
    for _ in range(3):
        await recorder.record(make_job(), (NOTE,))
    assert [verb for verb, _ in client.calls] == ["create Event", "PATCH", "PATCH"]
    await recorder.record(make_job(), (EventNote("Warning", "Failed", "x" * 2000),))
    event = client.calls[-1][1]
    assert event["regarding"]["uid"] == JOB_UID


@pytest.mark.parametrize("text", ["x" * 2000, "ü" * 600, "x" + "字" * 400])
async def test_a_long_note_is_cut_to_the_bytes_that_the_api_server_takes(text: str) -> None:
    client = Remembering()
    await EventRecorder(client, "pod").record(make_job(), (EventNote("Warning", "Failed", text),))  # type: ignore[arg-type]
    note = client.calls[-1][1]["note"]
    assert 1020 <= len(note.encode()) <= 1024
    assert text.startswith(note.removesuffix("…"))


async def test_an_event_that_the_api_server_has_forgotten_is_told_anew() -> None:
    client = Remembering({"PATCH": ApiError(404, "NotFound", "events expire after an hour")})
    recorder = EventRecorder(client, "pod")  # type: ignore[arg-type]
    for _ in range(2):
        await recorder.record(make_job(), (NOTE,))
    assert [verb for verb, _ in client.calls] == ["create Event", "PATCH", "create Event"]
    client.forget_failures()
    await recorder.record(make_job(), (NOTE,))
    assert client.calls[-1][1]["series"]["count"] == 2


async def test_an_event_of_an_operator_before_us_is_counted_on() -> None:
    client = Remembering({"create Event": ApiError(409, "AlreadyExists", "x")})
    await EventRecorder(client, "pod").record(make_job(), (NOTE,))  # type: ignore[arg-type]
    assert [verb for verb, _ in client.calls] == ["create Event", "PATCH"]


async def test_a_lost_event_holds_nothing_up() -> None:
    client = Remembering({"create Event": ApiError(500, "InternalError", "x")})
    await carry_out(Decision(events=(NOTE, NOTE)), client=client)
    assert [verb for verb, _ in client.calls] == ["create Event", "create Event"]
