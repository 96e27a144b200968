"""What was asked of an API server, and what roles grant."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

CREATED = 201
"""Answer to a server-side apply that made the object: for that, the server asks for the right to create it, too."""


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


def asked(events: Iterable[Mapping[str, Any]], user: str) -> set[Permission]:
    """Returns what a user asked for and needed a right to, by an API server's audit log.

    Args:
        events: The events of the log.
        user: Name of the user.
    """
    found = set()
    for event in events:
        target = event.get("objectRef")
        if event["user"]["username"] != user or target is None:
            continue
        resource = "/".join(filter(None, (target["resource"], target.get("subresource"))))
        place = (target.get("namespace", ""), target.get("name", ""))
        verbs = {event["verb"]}
        if event["verb"] == "patch" and event.get("responseStatus", {}).get("code") == CREATED:
            verbs.add("create")
        found |= {Permission(target.get("apiGroup", ""), resource, verb, *place) for verb in verbs}
    return found


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
