"""Reports become writes: soon, merged, seldom, and never in the way of what the operator decided."""

import asyncio
from typing import Any

import pytest

from strop.api.finetunejob import Progress
from strop.cluster.client import ApiError
from strop.progress.identity import Reporter
from strop.progress.metrics import Metrics
from strop.progress.writes import MANAGER, ProgressWriter

POD = Reporter("ns", "pod-1", "job", "uid-1")
NEXT_POD = Reporter("ns", "pod-2", "job", "uid-1")


class Written:
    """A client that keeps what is written, and fails as it is told."""

    def __init__(self, before: dict[str, Any] | None = None) -> None:
        self.progress: list[dict[str, Any]] = []
        self.errors: list[Exception] = []
        self._before = before

    async def get(self, *_: Any) -> dict[str, Any]:
        return {"status": {"progress": self._before}} if self._before else {}

    async def apply(self, manifest: dict[str, Any], *, subresource: str, manager: str, force: bool) -> None:
        assert (subresource, manager, force) == ("status", MANAGER, False)
        assert manifest["metadata"]["uid"] == "uid-1"
        if self.errors:
            raise self.errors.pop(0)
        self.progress.append(manifest["status"]["progress"])


async def written(client: Written, *reports: tuple[Reporter, Progress], seconds: float = 0.2) -> list[dict[str, Any]]:
    """Hands reports to a writer that writes one job every tenth of a second, and returns what it wrote."""
    writer = ProgressWriter(client, Metrics(), 0.1)  # type: ignore[arg-type]
    task = asyncio.create_task(writer.write_forever())
    for reporter, progress in reports:
        await writer.report(reporter, progress)
        await asyncio.sleep(seconds)
    await asyncio.sleep(0.6)
    task.cancel()
    return client.progress


def train(step: int, loss: str | None = None) -> Progress:
    return Progress(stage="train", display=f"{step}%", step=step, loss=loss)


async def test_a_report_is_written() -> None:
    assert await written(Written(), (POD, train(1, "2.0"))) == [
        {"stage": "train", "display": "1%", "step": 1, "loss": "2.0"}
    ]


async def test_the_same_said_again_is_not_written_again() -> None:
    again = train(1).model_copy(update={"updated_at": "2026-01-01T00:00:00Z"})
    assert len(await written(Written(), (POD, train(1)), (POD, again))) == 1


async def test_of_many_reports_the_last_is_written() -> None:
    found = await written(Written(), *((POD, train(step)) for step in range(20)), seconds=0.0)
    assert found[-1]["step"] == 19
    assert len(found) <= 3


async def test_a_stage_without_a_loss_keeps_the_loss() -> None:
    found = await written(Written(), (POD, train(9, "0.5")), (POD, Progress(stage="export", display="export")))
    assert found[-1] == {"stage": "export", "display": "export", "step": 9, "loss": "0.5"}


async def test_another_attempt_starts_from_nothing() -> None:
    found = await written(Written(), (POD, train(9, "0.5")), (NEXT_POD, Progress(stage="fetch", display="fetch")))
    assert found[-1] == {"stage": "fetch", "display": "fetch"}


async def test_what_another_replica_wrote_is_known() -> None:
    before = {"stage": "train", "display": "9%", "step": 9, "loss": "0.5"}
    found = await written(Written(before), (POD, Progress(stage="export", display="export")))
    assert found == [{"stage": "export", "display": "export", "step": 9, "loss": "0.5"}]


@pytest.mark.parametrize("status", [404, 409, 422])
async def test_what_cannot_be_written_is_dropped(status: int) -> None:
    client = Written()
    client.errors = [ApiError(status, "No", "x")]
    assert await written(client, (POD, train(1))) == []


@pytest.mark.parametrize("error", [ApiError(500, "InternalError", "x"), TimeoutError()])
async def test_what_fails_is_written_later(error: Exception) -> None:
    client = Written()
    client.errors = [error]
    assert len(await written(client, (POD, train(1)))) == 1
