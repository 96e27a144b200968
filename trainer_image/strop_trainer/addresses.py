"""Sources as they are told: an address without what it is signed with."""

from __future__ import annotations

from strop_trainer.plan import DataFile, Plan

_PATHS = ("pvc", "configmap", "hf")
"""Schemes whose sources are no addresses: `?`, `#` and `@` are letters of a path there."""


def shown(source: str) -> str:
    """Return a source for logs, messages and documents: an address without user, password, query and fragment."""
    scheme, colon, rest = source.partition("://")
    if not colon or scheme in _PATHS:
        return source
    host, slash, path = rest.partition("?")[0].partition("#")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def published(plan: Plan) -> Plan:
    """Return a Plan as a version tells it: its sources as they are shown; the digest stays that of what was run."""

    def cut(files: list[DataFile]) -> list[DataFile]:
        return [file.model_copy(update={"source": shown(file.source)}) for file in files]

    training = plan.training
    model = training.model.model_copy(update={"source": shown(training.model.source)})
    rows = {"train": cut(training.dataset.train), "validation": cut(training.dataset.validation)}
    dataset = training.dataset.model_copy(update=rows)
    return plan.model_copy(update={"training": training.model_copy(update={"model": model, "dataset": dataset})})
