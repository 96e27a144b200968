"""`hf://`: the Hugging Face hub, by its own client (HF_ENDPOINT and HF_TOKEN as everywhere).

A branch or tag is asked for its commit once a job, and the commit kept: a later attempt takes the same files, though
the branch has moved, and the version says which they were.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Literal

from strop_trainer.context import say
from strop_trainer.errors import TrainerError, bad_configuration, missing_input, no_permission, source_unavailable

MODEL = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)")
DATA = re.compile(r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)/(?P<path>.+)")

MODEL_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.spm", "*.txt"]
"""No pickled weights, no Python; `*.txt`, `*.model` and `*.spm` are vocabularies."""

SERVER_ERROR = 500
_COMMIT = re.compile(r"[0-9a-f]{40}")


def fetch_model(source: str, revision: str | None, into: Path, kept: Path) -> Path:
    """Fetch the files of a model that may be loaded, and return their folder.

    Args:
        source: hf://owner/name.
        revision: commit, tag or branch; None: the repository's main branch.
        into: where fetched things are.
        kept: file of the commits that the job has taken.

    Raises:
        TrainerError: the repository or revision does not exist, is refused, or the hub does not answer.
    """
    match = MODEL.fullmatch(source)
    if not match:
        raise bad_configuration(f"model {source}: expected hf://owner/name")
    commit = _commit("model", match["repo"], revision, kept, f"model {source}")
    folder = _folder(into, "model", source, commit)
    whole = folder.with_name(f"{folder.name}.whole")
    if whole.exists():
        return folder

    def download() -> None:
        from huggingface_hub import snapshot_download  # noqa: PLC0415 - half a second, only where it is used

        snapshot_download(match["repo"], revision=commit, local_dir=folder, allow_patterns=MODEL_FILES, max_workers=4)

    _tell(f"model {source}", commit)
    _ask(download, f"model {source}", commit)
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    whole.touch()
    return folder


def fetch_file(source: str, revision: str | None, into: Path, kept: Path) -> Path:
    """Fetch one file of a dataset repository; arguments as of `fetch_model`.

    Raises:
        TrainerError: it does not exist, is refused, or the hub does not answer.
    """
    match = DATA.fullmatch(source)
    # `folder / "/x"` is `/x`: an empty part leaves the folder as `..` does.
    if not match or not {"", ".."}.isdisjoint(match["path"].split("/")):
        raise bad_configuration(f"dataset {source}: expected hf://datasets/owner/name/path")
    commit = _commit("dataset", match["repo"], revision, kept, f"dataset {source}")
    folder = _folder(into, "data", f"hf://datasets/{match['repo']}", commit)
    if (folder / match["path"]).is_file():  # put there when it was whole
        return folder / match["path"]

    def download() -> None:
        from huggingface_hub import hf_hub_download  # noqa: PLC0415

        hf_hub_download(match["repo"], match["path"], repo_type="dataset", revision=commit, local_dir=folder)

    _tell(f"dataset {source}", commit)
    _ask(download, f"dataset {source}", commit)
    return folder / match["path"]


def commits(kept: Path) -> dict[str, str]:
    """Return the commits that the job has taken, by repository and what was asked of it: `hf://owner/name@main`."""
    if not kept.exists():
        return {}
    found: dict[str, str] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def repository_key(kind: Literal["model", "dataset"], repository: str, revision: str | None) -> str:
    """Return the key of `commits`."""
    return f"hf://{'datasets/' if kind == 'dataset' else ''}{repository}" + (f"@{revision}" if revision else "")


def _commit(kind: Literal["model", "dataset"], repository: str, revision: str | None, kept: Path, what: str) -> str:
    """Return the commit that a job takes of a repository; the hub is asked once, and the answer kept."""
    found, key = commits(kept), repository_key(kind, repository, revision)
    if key in found:
        return found[key]
    if revision is not None and _COMMIT.fullmatch(revision):
        commit = revision
    else:
        answers: list[str | None] = []

        def ask() -> None:
            from huggingface_hub import HfApi  # noqa: PLC0415

            answers.append(HfApi().repo_info(repository, repo_type=kind, revision=revision).sha)

        _ask(ask, what, revision)
        if not answers[0]:
            raise source_unavailable(f"{what}: the hub names no commit of {revision or 'its main branch'}")
        commit = answers[0]
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(".part")
    part.write_text(json.dumps(found | {key: commit}, indent=1), encoding="utf-8")
    part.replace(kept)
    return commit


def _tell(what: str, commit: str) -> None:
    token = "with" if os.environ.get("HF_TOKEN") else "without"
    say(f"  {what} from {_endpoint()}, commit {commit}, {token} a token")


def _folder(into: Path, kind: str, source: str, commit: str) -> Path:
    folder = into / f"{kind}-{sha256(f'{source}@{commit}'.encode()).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def _ask(download: Callable[[], None], what: str, revision: str | None) -> None:
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import httpx2  # noqa: PLC0415 - the hub client's own HTTP library
    from huggingface_hub import errors  # noqa: PLC0415

    endpoint = _endpoint()
    try:
        download()
    except errors.RevisionNotFoundError:
        raise missing_input(f"{what}: no revision {revision!r}") from None
    except errors.RemoteEntryNotFoundError:
        raise missing_input(f"{what}: the repository has no such file") from None
    except errors.HfHubHTTPError as error:
        raise _refused(what, error.response.status_code) from None
    except errors.LocalEntryNotFoundError as error:
        cause = error.__cause__
        if isinstance(cause, errors.HfHubHTTPError):
            raise _refused(what, cause.response.status_code) from None
        raise source_unavailable(f"{what}: {endpoint} does not answer ({cause or error})") from None
    except errors.HFValidationError as error:
        raise bad_configuration(f"{what}: {error}") from None
    except (httpx2.HTTPError, ConnectionError, TimeoutError) as error:
        raise source_unavailable(f"{what}: {endpoint} does not answer ({type(error).__name__}: {error})") from None


def _refused(what: str, status: int) -> TrainerError:
    token = "HF_TOKEN is refused" if os.environ.get("HF_TOKEN") else "HF_TOKEN is not set"
    if status in {401, 403}:
        return no_permission(
            f"{what}: the hub answers {status}: it does not exist, or is private or gated, and {token}"
        )
    if status in {404, 410}:
        return missing_input(f"{what}: not on the hub")
    if status == 429 or status >= SERVER_ERROR:  # noqa: PLR2004 - too many requests
        return source_unavailable(f"{what}: the hub answers {status}")
    return bad_configuration(f"{what}: the hub answers {status}")
