"""The rules, in the order in which they are asked: the first that applies decides.

Each looks at one subject and returns None where it does not apply, so that every rule may rely on those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from strop.api.names import Condition, Phase, Reason
from strop.decide import ending, pods
from strop.decide.decision import Action, Apply, Create, Delete, EventNote, Patch, SetFinalizer
from strop.decide.inputs import missing_inputs, waits_for
from strop.decide.pausing import pause_actions, resume_actions
from strop.decide.verdict import Gone, Unchanged, Verdict
from strop.decide.view import View, known
from strop.desired.children import build_applied, build_claim, drifted
from strop.desired.job import build_job
from strop.desired.metadata import Manifest

Rule = Callable[[View], Verdict | Unchanged | Gone | None]

SOON: Final = 1.0
"""Seconds until something is gone that no watch tells of."""
INPUT_SECONDS: Final = 10.0
"""Seconds between two looks for a claim or ConfigMap that is missing: they are not watched."""
NO_POD_SECONDS: Final = 5.0
"""Seconds between two looks at why a Job has no pod: only Events tell."""
STARTING_SECONDS: Final = 15.0
"""Seconds between two looks at why a pod with a node does not run: a volume's trouble is told by Events alone."""
CREATED_WORDS: Final = "the Job is created; waiting for its pod"
GOES_ON_WORDS: Final = "training goes on from the last checkpoint of this plan, if there is one"
PUBLISHING_STAGES: Final = frozenset({"export", "prove", "publish"})
STAGE_WORDS: Final[Mapping[str, str]] = {
    "check": "checking the job",
    "fetch": "fetching model and data",
    "prepare": "preparing model and data",
    "train": "training",
    "evaluate": "evaluating",
    "export": "exporting to ONNX",
    "prove": "proving the exports",
    "publish": "publishing",
}


def deleting(view: View) -> Verdict | Gone | None:
    """A deletion ends pods first, then what they mount, then lets the job go."""
    if not view.deleting:
        return None
    if not view.held:
        return Gone()
    job, claim = view.child, view.ours.get("PersistentVolumeClaim")
    if job or view.pods:
        actions: tuple[Action, ...] = ()
        if job and "deletionTimestamp" not in job["metadata"]:
            actions = (Delete(job, "Foreground"),)
        left = ", ".join(_where(pod) for pod in view.pods) or "its Job"
        return Verdict(Phase.DELETING, Reason.DELETING, f"waiting for the end of {left}", actions, SOON)
    if claim:
        actions = () if "deletionTimestamp" in claim["metadata"] else (Delete(claim),)
        words = f"waiting for claim {claim['metadata']['name']} to go"
        return Verdict(Phase.DELETING, Reason.DELETING, words, actions, SOON)
    return Gone((SetFinalizer(present=False),))


def finished(view: View) -> Unchanged | None:
    """What has ended is never run again; it is tidied up, and deleted when its time has come."""
    if not view.finished:
        return None
    actions: list[Action] = []
    claim = view.ours.get("PersistentVolumeClaim")
    if claim and view.was(Condition.COMPLETE) and "deletionTimestamp" not in claim["metadata"]:
        actions.append(Delete(claim))
    ttl, end = view.field("ttlSecondsAfterFinished"), view.previous.completion_time
    if ttl is None or end is None:
        return Unchanged(tuple(actions))
    left = float(ttl) - view.now.since(end)
    if left > 0:
        return Unchanged(tuple(actions), left)
    return Unchanged((*actions, Delete(view.observed.job)))


def refused(view: View) -> Verdict | None:
    """A spec that makes no Plan is told why; nothing is created."""
    if view.child or view.observed.refusal is None:
        return None
    refusal = view.observed.refusal
    return Verdict(Phase.INVALID, refusal.reason, refusal.message)


def name_taken(view: View) -> Verdict | None:
    """What stands under a child's name and is not ours is left alone."""
    if view.child:
        return None
    for kind, child in view.foreign.items():
        name = child["metadata"]["name"]
        if view.is_leaving(child):
            words = f"waiting for {kind} {name} of an earlier job of this name to go"
            return Verdict(Phase.PENDING, Reason.PROGRESSING, words, requeue_after=SOON)
        words = f"a {kind} named {name} exists and is not of this job: delete it, or give the job another name"
        return Verdict(Phase.INVALID, Reason.NAME_TAKEN, words, requeue_after=INPUT_SECONDS)
    return None


def input_missing(view: View) -> Verdict | None:
    """A claim or ConfigMap that is not there is waited for while the job is young, then told; no pod waits for it."""
    missing = () if view.child else missing_inputs(view)
    if not missing:
        return None
    if words := waits_for(missing, view.age):
        return Verdict(Phase.PENDING, Reason.WAITING_FOR_INPUT, words, requeue_after=SOON)
    cause = missing[0].cause
    return Verdict(Phase.INVALID, cause.reason, cause.message, requeue_after=INPUT_SECONDS)


def paused_before_start(view: View) -> Verdict | None:
    """A job that is created paused gets no children until it is resumed."""
    if view.child or not view.pause:
        return None
    return Verdict(Phase.SUSPENDED, Reason.SUSPENDED, "spec.suspend is set: nothing is started")


def left_behind(view: View) -> Verdict | None:
    """Pods of a Job that was deleted still save their checkpoints; those of the next one must not do so beside them."""
    if view.child or not view.live:
        return None
    left = ", ".join(_where(pod) for pod in view.live)
    words = f"the Job is gone, and is made anew once {left} has ended"
    return Verdict(Phase.STARTING, Reason.RESTARTED, words, requeue_after=SOON)


def start(view: View) -> Verdict | None:
    """An accepted job gets its finalizer, then its children, the Job last."""
    if view.child:
        return None
    job = build_job(view.plan, view.spec, view.owner, known(view.observed.pool), view.installation)
    hold: tuple[Action, ...] = () if view.held else (SetFinalizer(present=True),)
    actions = (*hold, *_healing(view), Create(job))
    lost = view.previous.start_time is not None
    words = f"the Job was gone, and is made anew: {GOES_ON_WORDS}" if lost else CREATED_WORDS
    reason = Reason.RESTARTED if lost else Reason.CREATED
    return Verdict(Phase.STARTING, reason, words, actions, NO_POD_SECONDS)


def failed(view: View) -> Verdict | None:
    """The Job's own verdict that it failed, with the cause that its pods tell."""
    condition = view.ended_as("Failed")
    return ending.failure(view, condition) if condition else None


def complete(view: View) -> Verdict | None:
    """The Job's own verdict that it is complete: what it published becomes a ModelVersion."""
    condition = view.ended_as("Complete")
    return ending.success(view, condition) if condition else None


def paused(view: View) -> Verdict | None:
    """A pause stops the pods, which save a checkpoint."""
    if not view.pause:
        return None
    words = "spec.suspend is set: the pods stop with a checkpoint" if view.live else "spec.suspend is set"
    actions = (*pause_actions(view), *_healing(view))
    unsettled = view.live or (view.queue and view.observed.workload is None)
    return Verdict(Phase.SUSPENDED, Reason.SUSPENDED, words, actions, SOON if unsettled else None)


def resumed(view: View) -> Verdict | None:
    """What we paused, and nothing else, is resumed."""
    actions = resume_actions(view)
    if not actions:
        return None
    note = EventNote("Normal", Reason.RESUMED, f"spec.suspend is unset: {GOES_ON_WORDS}")
    words = "resumed; waiting for a pod"
    return Verdict(Phase.STARTING, Reason.STARTING, words, (*actions, *_healing(view)), NO_POD_SECONDS, (note,))


def queued(view: View) -> Verdict | None:
    """A suspended Job that we did not pause waits for whoever admits it, such as Kueue."""
    if not known(view.child)["spec"].get("suspend"):
        return None
    if view.queue and not view.observed.kueue:
        words = f"waiting in queue {view.queue}, but Kueue is not installed in this cluster"
    elif view.queue:
        words = f"waiting in queue {view.queue}" + _workload_words(view.observed.workload)
    else:
        words = "the Job is suspended by someone else than this job's spec.suspend"
    # Workloads may be unwatched: Kueue can have been installed after the operator began.
    return Verdict(Phase.QUEUED, Reason.WAITING_FOR_QUOTA, words, _healing(view))


def running(view: View) -> Verdict | None:
    """A trainer that runs, and the stage that it last reported."""
    if not any(pods.phase(pod) == "Running" for pod in view.live):
        return None
    stage = _stage(view)
    attempt = f" (attempt {view.attempt})" if view.attempt > 1 else ""
    before = f"; the attempt before ended: {view.last_failure.message}" if view.last_failure else ""
    words = STAGE_WORDS.get(stage, "the trainer runs") + attempt + before
    if stage in PUBLISHING_STAGES:
        return Verdict(Phase.PUBLISHING, Reason.PROGRESSING, words, _healing(view))
    return Verdict(Phase.RUNNING, Reason.TRAINING, words, _healing(view))


def waiting(view: View) -> Verdict | None:
    """A pod that is there and does not run yet says why, in words."""
    if not view.live:
        return None
    first = view.live[0]
    cause = pods.why_waiting(first, view.unbound, view.observed.warning)
    phase = {Reason.STARTING: Phase.STARTING, Reason.WAITING_FOR_QUOTA: Phase.QUEUED}.get(cause.reason, Phase.PENDING)
    again = STARTING_SECONDS if pods.is_being_made(first) else None
    return Verdict(phase, cause.reason, cause.message, _healing(view), again)


def pod_refused(view: View) -> Verdict | None:
    """A Job without a pod, whose controller says that it may not create one."""
    cause = pods.why_refused(view.observed.refused_pods)
    if cause is None:
        return None
    phase = Phase.QUEUED if cause.reason == Reason.WAITING_FOR_QUOTA else Phase.PENDING
    return Verdict(phase, cause.reason, cause.message, _healing(view), NO_POD_SECONDS)


def closing(view: View) -> Verdict | None:
    """A trainer has ended well, and the Job controller has not said so yet."""
    if view.live or not any(pods.phase(pod) == "Succeeded" for pod in view.pods):
        return None
    words = "the trainer has ended; its Job is being closed"
    return Verdict(Phase.PUBLISHING, Reason.PROGRESSING, words, _healing(view), NO_POD_SECONDS)


def between_attempts(view: View) -> Verdict | None:
    """An attempt has failed, and the Job has neither made the next pod yet nor given up."""
    cause = view.last_failure
    if cause is None:
        return None
    words = f"attempt {view.attempt} ended: {cause.message}"
    if view.was_last_attempt:
        # What to think of it is the Job's to say, and comes within a second.
        return Verdict(Phase.RUNNING, Reason.TRAINING, words, _healing(view), NO_POD_SECONDS)
    reason = Reason.PREEMPTED if cause.reason == Reason.PREEMPTED else Reason.RESTARTED
    return Verdict(Phase.STARTING, reason, f"{words}; another follows", _healing(view), NO_POD_SECONDS)


def created(view: View) -> Verdict:
    """The Job is there, and has no pod yet."""
    return Verdict(Phase.STARTING, Reason.CREATED, CREATED_WORDS, _healing(view), NO_POD_SECONDS)


RULES: Final[tuple[Rule, ...]] = (
    deleting,
    finished,
    refused,
    name_taken,
    input_missing,
    paused_before_start,
    left_behind,
    start,
    failed,
    complete,
    paused,
    resumed,
    queued,
    running,
    waiting,
    closing,
    pod_refused,
    between_attempts,
    created,
)


def _healing(view: View) -> tuple[Action, ...]:
    """Put back what is missing or was changed, as long as it is what the Job was made from."""
    return (*_children(view), *_deadline(view))


def _children(view: View) -> Iterator[Action]:
    plan = view.observed.plan
    if plan is None or (view.child and view.plan_digest_of(view.child) != plan.digest):
        return
    for child in build_applied(plan, view.owner, view.installation):
        if child["kind"] not in view.foreign and drifted(child, view.ours.get(child["kind"])):
            yield Apply(child)
    claimed = "PersistentVolumeClaim" in view.observed.children
    if not claimed and view.observed.spec and view.observed.pool:
        yield Create(build_claim(plan, view.observed.spec, view.owner, view.observed.pool))


def _deadline(view: View) -> Iterator[Action]:
    wanted = view.field("activeDeadlineSeconds")
    if view.child and view.child["spec"].get("activeDeadlineSeconds") != wanted:
        yield Patch(view.child, {"spec": {"activeDeadlineSeconds": wanted}})


def _stage(view: View) -> str:
    """Return the stage that the trainer last reported; empty where that was an earlier attempt's."""
    progress = view.previous.progress
    started = max(filter(None, map(pods.started_at, view.live)), default="")
    if progress is None or (progress.updated_at or started) < started:
        return ""
    return progress.stage


def _where(pod: Manifest) -> str:
    node = pod.get("spec", {}).get("nodeName")
    return f"pod {pod['metadata']['name']}" + (f" on {node}" if node else "")


def _workload_words(workload: Manifest | None) -> str:
    if workload is None:
        return ""
    conditions = {each["type"]: each for each in workload.get("status", {}).get("conditions", [])}
    if workload.get("spec", {}).get("active") is False:
        return ", where it has been deactivated"
    reserved = conditions.get("QuotaReserved", {})
    evicted = conditions.get("Evicted", {})
    if reserved.get("status") == "False" and reserved.get("message"):
        return f": {reserved['message']}"
    if evicted.get("status") == "True" and evicted.get("message"):
        return f", evicted: {evicted['message']}"
    return ""
