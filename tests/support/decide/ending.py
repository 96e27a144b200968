"""The operator's promises to a job that fails or is done."""

import json

from strop.api.names import Phase, Reason
from tests.support.decide.case import ACCEPTED, Case
from tests.support.decide.seen import begun
from tests.support.jobs import JOB_UID, ended_pod, job_ended, make_child, make_plan, make_pod, running_pod, termination


def last_word(reason: str, message: str, stage: str = "prepare") -> str:
    return json.dumps({"stage": stage, "reason": reason, "message": message})


ENDING = [
    Case(
        "bad data fails the job in the trainer's words",
        begun(
            child=make_child(status=job_ended("Failed", "PodFailurePolicy")),
            pods=(ended_pod(65, last_word("BadData", "rows/train.jsonl line 7: no assistant turn")),),
        ),
        Phase.FAILED,
        Reason.BAD_DATA,
        "prepare: rows/train.jsonl line 7: no assistant turn",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "an end by lack of memory fails the job with the numbers",
        begun(
            child=make_child(status=job_ended("Failed", "BackoffLimitExceeded")),
            pods=(ended_pod(137, reason="OOMKilled"), ended_pod(137, reason="OOMKilled", name="b")),
            plan=make_plan(
                placement={
                    "estimate": {
                        "weights": 1,
                        "gradients": 1,
                        "optimizer": 1,
                        "activations": 1,
                        "overhead": 1,
                        "total": 3 * 1024**3,
                        "basis": "preset smollm2",
                    }
                }
            ),
        ),
        Phase.FAILED,
        Reason.OUT_OF_MEMORY,
        "at its limit of 4Gi; the estimate was 3.0 GiB (preset smollm2). Raise compute.resources.memory, lower "
        "training.microBatchSize or training.maxLength, or set training.gradientCheckpointing: true",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "several attempts are counted",
        begun(
            child=make_child(status=job_ended("Failed", "BackoffLimitExceeded")),
            pods=(ended_pod(70, name="a"), ended_pod(70, "Traceback\nKeyError: 'x'\n", name="b")),
        ),
        Phase.FAILED,
        Reason.TRAINER_FAILED,
        "exit code 70 (an unexpected error; tried again): KeyError: 'x' (after 2 attempts)",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "an exit code that nobody knows is told with the end of the log",
        begun(
            child=make_child(status=job_ended("Failed", "BackoffLimitExceeded")), pods=(ended_pod(3, "first\nlast\n"),)
        ),
        Phase.FAILED,
        Reason.TRAINER_FAILED,
        "exit code 3 (an unexpected end): last",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "a word of a foreign vocabulary does not become a reason",
        begun(
            child=make_child(status=job_ended("Failed", "PodFailurePolicy")),
            pods=(ended_pod(78, last_word("Weird reason", "does not fit", "")),),
        ),
        Phase.FAILED,
        Reason.BAD_CONFIGURATION,
        "does not fit",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "an evicted pod tells why",
        begun(
            child=make_child(status=job_ended("Failed", "BackoffLimitExceeded")),
            pods=(make_pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."),),
        ),
        Phase.FAILED,
        Reason.TRAINER_FAILED,
        "The node was low on resource: memory.",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "of several attempts the latest speaks, also where its container left no trace",
        begun(
            child=make_child(status=job_ended("Failed", "BackoffLimitExceeded")),
            pods=(
                ended_pod(137, reason="OOMKilled", at="2026-01-01T00:04:00Z"),
                make_pod(
                    "b",
                    phase="Failed",
                    created="2026-01-01T00:04:10Z",
                    reason="OutOfcpu",
                    message="Node didn't have enough resource: cpu",
                ),
            ),
        ),
        Phase.FAILED,
        Reason.TRAINER_FAILED,
        "Node didn't have enough resource: cpu (after 2 attempts)",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "a pod that vanished without a word",
        begun(child=make_child(status=job_ended("Failed", "BackoffLimitExceeded")), pods=(make_pod(phase="Failed"),)),
        Phase.FAILED,
        Reason.TRAINER_FAILED,
        "without a word",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "a failed Job whose pods are gone speaks for itself",
        begun(child=make_child(status=job_ended("Failed", "BackoffLimitExceeded", "Job has reached the limit"))),
        Phase.FAILED,
        Reason.BACKOFF_LIMIT,
        "Job has reached the limit",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "a failed Job without any word",
        begun(child=make_child(status=job_ended("Failed", "Other"))),
        Phase.FAILED,
        Reason.TRAINER_FAILED,
        "without a word",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "a deadline that passed is told with the deadline",
        begun(
            child=make_child(
                spec={"activeDeadlineSeconds": 60}, status=job_ended("Failed", "DeadlineExceeded", "Job was active")
            ),
            pods=(ended_pod(75, last_word("Preempted", "checkpoint saved")),),
        ),
        Phase.FAILED,
        Reason.DEADLINE_EXCEEDED,
        "not done within activeDeadlineSeconds (60 s)",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "a deadline that passed before any pod ended",
        begun(child=make_child(status=job_ended("Failed", "DeadlineExceeded"))),
        Phase.FAILED,
        Reason.DEADLINE_EXCEEDED,
        "activeDeadlineSeconds",
        true="Accepted Failed Stalled",
        warning=True,
    ),
    Case(
        "a failure target is no failure yet: pods may still be ending",
        begun(child=make_child(status=job_ended("FailureTarget", "PodFailurePolicy")), pods=(running_pod(),)),
        Phase.RUNNING,
        Reason.TRAINING,
        "the trainer runs",
        true=f"{ACCEPTED} Running",
    ),
    Case(
        "what was published becomes a ModelVersion",
        begun(child=make_child(status=job_ended("Complete")), pods=(ended_pod(0, termination().dump()),)),
        Phase.COMPLETE,
        Reason.COMPLETE,
        "support-bot version 1 is published: eval_loss 2.5 → 0.8, exact_match 0 → 0.6",
        ["create ModelVersion"],
        "Accepted Complete Published",
    ),
    Case(
        "a version without metrics is a version",
        begun(
            child=make_child(status=job_ended("Complete")),
            pods=(ended_pod(0, termination(metricsBase={}, metricsTuned={}).dump()),),
        ),
        Phase.COMPLETE,
        Reason.COMPLETE,
        "support-bot version 1 is published",
        ["create ModelVersion"],
        "Accepted Complete Published",
    ),
    Case(
        "a metric that the base model has not is told as such",
        begun(
            child=make_child(status=job_ended("Complete")),
            pods=(ended_pod(0, termination(metricsBase={}, metricsTuned={"exact_match": 0.5}).dump()),),
        ),
        Phase.COMPLETE,
        Reason.COMPLETE,
        "exact_match ? → 0.5",
        ["create ModelVersion"],
        "Accepted Complete Published",
    ),
    Case(
        "a ModelVersion that we made already stays as it is",
        begun(
            child=make_child(status=job_ended("Complete")),
            pods=(ended_pod(0, termination().dump()),),
            versions={"support-bot-v1": {"spec": {"job": {"uid": JOB_UID}}}},
        ),
        Phase.COMPLETE,
        Reason.COMPLETE,
        "support-bot version 1 is published",
        true="Accepted Complete Published",
    ),
    Case(
        "a done trainer whose last word is gone",
        begun(child=make_child(status=job_ended("Complete")), pods=(ended_pod(0, "garbage"),)),
        Phase.COMPLETE,
        Reason.FINISHED,
        "its last word is gone",
        true="Accepted Complete",
    ),
]
