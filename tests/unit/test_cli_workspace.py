"""The folders of a run without a cluster."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from strop.cli.errors import CliError
from strop.cli.workspace import Mounts, Roots, Workspace, alone_in, lay_out, open_workspace
from strop.planning.resolve import resolve
from strop_trainer.plan import Plan, load_plan
from tests.support.planning import job_of, pool_of

CONTENTS = {("team-a", "rows"): {"train.jsonl": b"{}\n"}}
NOTHING = Mounts({}, {}, None, None)


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    (tmp_path / "volumes" / "base-models").mkdir(parents=True)
    return Roots(tmp_path / "volumes", tmp_path / "work")


def plan_of(**fields) -> Plan:
    return resolve(job_of(**fields), [pool_of()])


def laid_out(plan: Plan, roots: Roots, mounts: Mounts = NOTHING, contents=CONTENTS) -> Workspace:
    workspace = open_workspace(plan, mounts, roots)
    lay_out(workspace, plan, contents, mounts, roots)
    return workspace


def refusal(plan: Plan, roots: Roots, mounts: Mounts = NOTHING, contents=CONTENTS) -> CliError:
    with pytest.raises(CliError) as refused:
        laid_out(plan, roots, mounts, contents)
    return refused.value


def test_a_run_has_what_a_pod_would_have_mounted(roots: Roots) -> None:
    plan = plan_of()
    workspace = laid_out(plan, roots)
    environment = workspace.environment()
    assert load_plan(Path(environment["STROP_PLAN"]).read_bytes()) == plan
    assert (Path(environment["STROP_VOLUMES"]) / "base-models").resolve() == roots.volumes / "base-models"
    assert (Path(environment["STROP_CONFIGMAPS"]) / "rows" / "train.jsonl").read_bytes() == b"{}\n"
    assert Path(environment["STROP_REGISTRY"]) == roots.volumes / "strop-models" / "team-a"
    assert Path(environment["STROP_REGISTRY"]).is_dir()
    assert Path(environment["STROP_WORK"]).is_dir()
    assert Path(environment["STROP_WORK"]).is_relative_to(roots.work / "team-a")
    assert environment["STROP_JOB_UID"]
    assert all(Path(value).is_absolute() for name, value in environment.items() if name != "STROP_JOB_UID")


def test_a_second_run_finds_the_first_ones_folder_and_uid(roots: Roots) -> None:
    first = laid_out(plan_of(), roots)
    uid = first.environment()["STROP_JOB_UID"]
    (first.state / "checkpoint").mkdir()
    second = laid_out(plan_of(), roots)
    assert second == first
    assert second.environment()["STROP_JOB_UID"] == uid
    assert (second.state / "checkpoint").is_dir()


def test_after_its_end_a_run_begins_anew_and_keeps_what_was_fetched(roots: Roots) -> None:
    workspace = laid_out(plan_of(), roots)
    uid = workspace.environment()["STROP_JOB_UID"]
    for name in ("checkpoints", "fetched"):
        (workspace.state / name).mkdir()
    (workspace.state / "metrics.jsonl").touch()
    workspace.finish()
    assert [path.name for path in workspace.state.iterdir()] == ["fetched"]
    assert workspace.environment()["STROP_JOB_UID"] != uid


def test_another_plan_has_another_folder(roots: Roots) -> None:
    assert laid_out(plan_of(), roots).root != laid_out(plan_of(training__seed=1), roots).root


def test_folders_of_the_command_line_stand_for_claims_and_config_maps(roots: Roots, tmp_path: Path) -> None:
    for name in ("models", "keys"):
        (tmp_path / name).mkdir()
    (tmp_path / "keys" / "train.jsonl").write_text("given", encoding="utf-8")
    mounts = Mounts(
        {"base-models": tmp_path / "models"}, {"rows": tmp_path / "keys"}, tmp_path / "registry", tmp_path / "here"
    )
    workspace = laid_out(plan_of(), roots, mounts, {})
    assert (workspace.volumes / "base-models").resolve() == tmp_path / "models"
    assert (workspace.config_maps / "rows" / "train.jsonl").read_text(encoding="utf-8") == "given"
    assert workspace.registry == tmp_path / "registry" / "team-a"
    assert workspace.root == tmp_path / "here"


def test_a_config_map_that_changed_is_laid_out_anew(roots: Roots) -> None:
    laid_out(plan_of(), roots, contents={("team-a", "rows"): {"old": b""}})
    workspace = laid_out(plan_of(), roots)
    assert [path.name for path in (workspace.config_maps / "rows").iterdir()] == ["train.jsonl"]


def test_what_is_not_there_is_said_all_at_once_and_nothing_is_filled_in(roots: Roots) -> None:
    (roots.volumes / "base-models").rmdir()
    found = refusal(plan_of(), roots, contents={("other", "rows"): {}})
    assert found.exit_code == 66
    assert "claim base-models: no folder" in found.lines[0]
    assert "--volume base-models=DIR" in found.lines[0]
    assert "ConfigMap rows: not in the files (namespace team-a)" in found.lines[1]
    mounts = Mounts({}, {"rows": Path("/none")}, None, None)
    assert "--configmap rows=/none: no such folder" in refusal(plan_of(), roots, mounts).lines[1]


def test_a_folder_with_other_things_is_left_alone(roots: Roots, tmp_path: Path) -> None:
    (tmp_path / "mine" / "volumes").mkdir(parents=True)
    (tmp_path / "mine" / "volumes" / "precious").touch()
    found = refusal(plan_of(), roots, Mounts({}, {}, None, tmp_path / "mine"))
    assert found.exit_code == 78
    assert "holds other things" in found.lines[0]
    assert (tmp_path / "mine" / "volumes" / "precious").exists()


def test_a_folder_of_another_plan_is_refused(roots: Roots, tmp_path: Path) -> None:
    mounts = Mounts({}, {}, None, tmp_path / "mine")
    workspace = laid_out(plan_of(), roots, mounts)
    assert "holds the work of another plan" in refusal(plan_of(training__seed=1), roots, mounts).lines[0]
    workspace.plan.write_text("{}", encoding="utf-8")
    assert "holds the work of another plan" in refusal(plan_of(), roots, mounts).lines[0]


def test_a_place_that_cannot_be_written_is_said(roots: Roots, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = refusal(plan_of(), roots, Mounts({}, {}, None, tmp_path / "file" / "work"))
    assert found.exit_code == 73
    assert "cannot be written" in found.lines[0]


def test_two_runs_do_not_share_a_folder(roots: Roots) -> None:
    workspace = laid_out(plan_of(), roots)
    code = (
        "import sys; from pathlib import Path; from strop.cli.workspace import Workspace, alone_in\n"
        "with alone_in(Workspace(Path(sys.argv[1]), Path('r'))): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(workspace.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        with pytest.raises(CliError, match="another strop run works here") as refused, alone_in(workspace):
            pass
        assert refused.value.exit_code == 75
        other.communicate("")
    with alone_in(workspace):
        pass


def test_volumes_are_where_the_environment_says_else_in_the_home() -> None:
    home = Path("/home/someone")
    assert Roots.of({}, home).volumes == home / ".local/share/strop/volumes"
    assert Roots.of({"STROP_VOLUMES": "/vol"}, home) == Roots(Path("/vol"), home / ".local/share/strop/work")
    assert os.sep == "/"
