"""What an audit log says is held against roles as an API server does."""

from typing import Any

import pytest

from tests.support.rbac import Permission, asked, compare, granted

USER = "system:serviceaccount:own:operator"


def event(verb: str, code: int = 200, user: str = USER, **target: str) -> dict[str, Any]:
    return {"verb": verb, "user": {"username": user}, "objectRef": target, "responseStatus": {"code": code}}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (event("list", resource="pods"), {Permission("", "pods", "list")}),
        (event("get", resource="pods", namespace="team", name="x"), {Permission("", "pods", "get", "team", "x")}),
        (event("create", 201, apiGroup="batch", resource="jobs"), {Permission("batch", "jobs", "create")}),
        (event("patch", apiGroup="batch", resource="jobs"), {Permission("batch", "jobs", "patch")}),
        (
            event("patch", 201, apiGroup="batch", resource="jobs"),
            {Permission("batch", "jobs", "patch"), Permission("batch", "jobs", "create")},
        ),
        (
            event("patch", apiGroup="batch", resource="jobs", subresource="status"),
            {Permission("batch", "jobs/status", "patch")},
        ),
        (event("list", user="somebody", resource="pods"), set()),
        ({"verb": "get", "user": {"username": USER}, "requestURI": "/apis"}, set()),
    ],
)
def test_asked(entry: dict[str, Any], expected: set[Permission]) -> None:
    assert asked([entry], USER) == expected


def test_compare_finds_what_is_missing_and_what_is_too_much() -> None:
    rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["tls"], "verbs": ["get", "patch"]}
    grants = granted([{"metadata": {"namespace": "own"}, "rules": [rule]}])
    needs = {Permission("", "secrets", "get", namespace, "tls") for namespace in ("own", "team")}
    assert compare(grants, needs) == (["get secrets.core tls in team"], ["patch secrets.core tls in own"])


def test_cluster_wide_grant_covers_every_namespace() -> None:
    rule = {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"]}
    grants = granted([{"metadata": {}, "rules": [rule]}])
    assert compare(grants, {Permission("batch", "jobs", "get", "team", "x")}) == ([], [])
    missing, _ = compare(grants, {Permission("batch", "jobs", "list", "team")})
    assert missing == ["list jobs.batch (all) in team"]
