"""Requests are translated into permissions as an API server does."""

import pytest

from tests.support.rbac import Permission, compare, granted, needed

JOBS = "/apis/batch/v1/namespaces/team/jobs"


@pytest.mark.parametrize(
    ("method", "target", "content_type", "expected"),
    [
        ("GET", "/api/v1/pods?limit=500", "", {Permission("", "pods", "list")}),
        ("GET", "/api/v1/pods?watch=true&resourceVersion=1", "", {Permission("", "pods", "watch")}),
        ("GET", f"{JOBS}?labelSelector=a", "", {Permission("batch", "jobs", "list", "team")}),
        ("GET", f"{JOBS}/x", "", {Permission("batch", "jobs", "get", "team", "x")}),
        ("POST", JOBS, "application/json", {Permission("batch", "jobs", "create", "team")}),
        ("PUT", f"{JOBS}/x", "application/json", {Permission("batch", "jobs", "update", "team", "x")}),
        ("PATCH", f"{JOBS}/x", "application/merge-patch+json", {Permission("batch", "jobs", "patch", "team", "x")}),
        (
            "PATCH",
            f"{JOBS}/x?fieldManager=strop",
            "application/apply-patch+yaml",
            {Permission("batch", "jobs", verb, "team", "x") for verb in ("patch", "create")},
        ),
        (
            "PATCH",
            f"{JOBS}/x/status",
            "application/apply-patch+yaml",
            {Permission("batch", "jobs/status", "patch", "team", "x")},
        ),
        ("DELETE", f"{JOBS}/x", "", {Permission("batch", "jobs", "delete", "team", "x")}),
        ("DELETE", JOBS, "", {Permission("batch", "jobs", "deletecollection", "team")}),
        ("GET", "/api/v1/namespaces", "", {Permission("", "namespaces", "list")}),
        ("GET", "/api/v1/namespaces/team", "", {Permission("", "namespaces", "get", "", "team")}),
        (
            "POST",
            "/apis/authentication.k8s.io/v1/tokenreviews",
            "",
            {Permission("authentication.k8s.io", "tokenreviews", "create")},
        ),
        ("GET", "/apis", "", set()),
        ("GET", "/apis/strop.dev/v1alpha1", "", set()),
        ("GET", "/api/v1", "", set()),
        ("GET", "/version", "", set()),
    ],
)
def test_request_needs(method: str, target: str, content_type: str, expected: set[Permission]) -> None:
    assert needed(method, target, content_type) == expected


def test_compare_finds_what_is_missing_and_what_is_too_much() -> None:
    rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["tls"], "verbs": ["get", "patch"]}
    grants = granted([{"metadata": {"namespace": "own"}, "rules": [rule]}])
    needs = needed("GET", "/api/v1/namespaces/own/secrets/tls") | needed("GET", "/api/v1/namespaces/team/secrets/tls")
    assert compare(grants, needs) == (["get secrets.core tls in team"], ["patch secrets.core tls in own"])


def test_cluster_wide_grant_covers_every_namespace() -> None:
    rule = {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"]}
    grants = granted([{"metadata": {}, "rules": [rule]}])
    assert compare(grants, needed("GET", f"{JOBS}/x")) == ([], [])
    assert compare(grants, needed("GET", JOBS))[0] == ["list jobs.batch (all) in team"]
