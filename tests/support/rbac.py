"""What requests to an API server need, and what roles grant."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

APPLY = "application/apply-patch"

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


class Permission(NamedTuple):
    """One thing that may be done."""

    group: str
    """API group; empty for the core group."""
    resource: str
    """Plural name, with a subresource such as ``finetunejobs/status``."""
    verb: str
    namespace: str = ""
    """Empty: all namespaces, or none."""
    name: str = ""
    """Empty: all names."""

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}.{self.group or 'core'} {self.name or '(all)'}{where}"


def needed(method: str, target: str, content_type: str = "") -> set[Permission]:
    """Returns what a request needs; nothing where it is for no resource, such as discovery.

    Args:
        method: Such as ``GET``.
        target: Path and query.
        content_type: Of the body. A server-side apply may create.
    """
    parts = urlsplit(target)
    path = [part for part in parts.path.split("/") if part]
    if path[:1] == ["api"] and len(path) > 2:
        group, rest = "", path[2:]
    elif path[:1] == ["apis"] and len(path) > 3:
        group, rest = path[1], path[3:]
    else:
        return set()
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    name = rest[1] if len(rest) > 1 else ""
    resource = "/".join([rest[0], *rest[2:]])
    watches = parse_qs(parts.query).get("watch", ["false"])[0] in ("true", "1")
    match method:
        case "GET":
            verb = "get" if name else "watch" if watches else "list"
        case "DELETE":
            verb = "delete" if name else "deletecollection"
        case _:
            verb = _VERBS[method]
    verbs = {verb, "create"} if content_type.startswith(APPLY) and "/" not in resource else {verb}
    return {Permission(group, resource, each, namespace, name) for each in verbs}


def granted(roles: Iterable[Mapping[str, Any]]) -> set[Permission]:
    """Returns what Roles and ClusterRoles grant."""
    return {
        Permission(group, resource, verb, role["metadata"].get("namespace", ""), name)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }


def covers(grant: Permission, need: Permission) -> bool:
    """Says whether what is granted is enough for what is needed."""
    return grant[:3] == need[:3] and grant.namespace in ("", need.namespace) and grant.name in ("", need.name)


def compare(grants: set[Permission], needs: set[Permission]) -> tuple[list[str], list[str]]:
    """Returns what is needed and not granted, and what is granted and not needed, in words."""
    missing = [str(need) for need in needs if not any(covers(grant, need) for grant in grants)]
    unused = [str(grant) for grant in grants if not any(covers(grant, need) for need in needs)]
    return sorted(missing), sorted(unused)
