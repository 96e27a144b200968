"""`hf://`: the Hugging Face hub, by its own client (HF_ENDPOINT and HF_TOKEN as everywhere)."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from strop_trainer.context import say
from strop_trainer.errors import TrainerError, bad_configuration, missing_input, no_permission, source_unavailable

MODEL = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)")
DATA = re.compile(r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)/(?P<path>.+)")

MODEL_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
"""No pickled weights, no Python; `*.txt` and `*.model` are vocabularies."""

SERVER_ERROR = 500


def fetch_model(source: str, revision: str | None, into: Path) -> Path:
    """Fetch the files of a model that may be loaded, and return their folder.

    Raises:
        TrainerError: the repository or revision does not exist, is refused, or the hub does not answer.
    """
    match = MODEL.fullmatch(source)
    if not match:
        raise bad_configuration(f"model {source}: expected hf://owner/name")
    folder = _folder(into, "model", source, revision)

    def download() -> None:
        from huggingface_hub import snapshot_download  # noqa: PLC0415 - half a second, only where it is used

        snapshot_download(match["repo"], revision=revision, local_dir=folder, allow_patterns=MODEL_FILES, max_workers=4)

    _ask(download, f"model {source}", revision)
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return folder


def fetch_file(source: str, revision: str | None, into: Path) -> Path:
    """Fetch one file of a dataset repository.

    Raises:
        TrainerError: it does not exist, is refused, or the hub does not answer.
    """
    match = DATA.fullmatch(source)
    if not match or ".." in Path(match["path"]).parts:
        raise bad_configuration(f"dataset {source}: expected hf://datasets/owner/name/path")
    folder = _folder(into, "data", f"hf://datasets/{match['repo']}", revision)

    def download() -> None:
        from huggingface_hub import hf_hub_download  # noqa: PLC0415

        hf_hub_download(match["repo"], match["path"], repo_type="dataset", revision=revision, local_dir=folder)

    _ask(download, f"dataset {source}", revision)
    return folder / match["path"]


def _folder(into: Path, kind: str, source: str, revision: str | None) -> Path:
    folder = into / f"{kind}-{sha256(f'{source}@{revision}'.encode()).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _ask(download: Callable[[], None], what: str, revision: str | None) -> None:
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import httpx2  # noqa: PLC0415 - the hub client's own HTTP library
    from huggingface_hub import errors  # noqa: PLC0415

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    say(f"  {what} from {endpoint}, {'with' if os.environ.get('HF_TOKEN') else 'without'} a token")
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
