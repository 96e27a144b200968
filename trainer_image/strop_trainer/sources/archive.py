"""A `.tar.gz` of a model folder."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from pathlib import Path

from strop_trainer.addresses import shown
from strop_trainer.errors import bad_configuration, bad_data, missing_input


def unpack(archive: Path, into: Path, source: str) -> Path:
    """Unpack a `.tar.gz` once and return the folder that holds config.json: its root, or its one folder.

    Links, devices and paths that lead out of the archive are refused.

    Raises:
        TrainerError: it is no such archive, or unsafe, or holds no model.
    """
    stat, what = archive.stat(), f"model {shown(source)}"
    key = hashlib.sha256(f"{source} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = into / f"model-{key}"
    if not folder.is_dir():
        staging = into / f".model-{key}.part"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        try:
            with tarfile.open(archive, "r:gz") as opened:
                opened.extractall(staging, filter="data")
        except tarfile.FilterError as error:
            raise bad_configuration(f"{what}: unsafe archive: {error}") from None
        except (tarfile.TarError, EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk, not the archive
            raise bad_data(f"{what}: not a readable .tar.gz: {error}") from None
        staging.rename(folder)
    if (folder / "config.json").is_file():
        return folder
    inner = [path for path in folder.iterdir() if path.is_dir() and (path / "config.json").is_file()]
    if len(inner) != 1:
        raise missing_input(f"{what}: the archive has no config.json in its root or its only folder")
    return inner[0]
