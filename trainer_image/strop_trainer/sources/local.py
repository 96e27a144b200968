"""`pvc://` and `configmap://`: folders that the surroundings have mounted, and nothing outside them."""

from __future__ import annotations

import re
from pathlib import Path

from strop_trainer.context import Settings
from strop_trainer.errors import bad_configuration, missing_input, no_permission

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


def find(source: str, settings: Settings) -> Path:
    """Return the existing path of a mounted source.

    Raises:
        TrainerError: the claim or path is missing, cannot be read, or leads out of the claim.
    """
    scheme, _, rest = source.partition("://")
    name, _, inner = rest.partition("/")
    root = settings.volumes if scheme == "pvc" else settings.config_maps
    what = "claim" if scheme == "pvc" else "ConfigMap"
    if not NAME.fullmatch(name):
        raise bad_configuration(f"{source}: {name!r} is not the name of a {what}")
    mount = root / name
    if not mount.is_dir():
        raise missing_input(f"{source}: {what} {name} is not mounted")
    return inside(mount, inner, source, f"{what} {name}")


def inside(root: Path, inner: str, source: str, where: str) -> Path:
    """Return `root/inner`, existing, readable and, with all links followed, still inside `root`.

    Raises:
        TrainerError: it is not.
    """
    if inner.startswith("/") or ".." in Path(inner).parts or "\0" in inner:
        raise bad_configuration(f"{source}: the path must stay inside {where}")
    try:
        real = (root / inner).resolve(strict=True)
    except FileNotFoundError:
        raise missing_input(f"{source}: {where} has no {inner!r}") from None
    except PermissionError:
        raise no_permission(f"{source}: {where} cannot be read at {inner!r}") from None
    except (OSError, RuntimeError) as error:  # a loop of links, a file used as a folder, an over-long name
        raise missing_input(f"{source}: {where} has no {inner!r} ({error})") from None
    if not real.is_relative_to(root.resolve()):
        raise bad_configuration(f"{source}: the path leads out of {where} by a link")
    return real
