"""Every manifest in examples/ is one that admission takes and the planner can plan."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import yaml

from strop.api.finetunejob import DatasetSpec, FineTuneJobSpec
from strop.cli.manifests import load
from strop.planning.inputs import Job
from strop.planning.presets import model_facts
from strop.planning.resolve import resolve
from strop_trainer.plan import MethodType, load_plan
from tests.support.paths import REPOSITORY

EXAMPLES = REPOSITORY / "examples"
MANIFESTS = sorted(EXAMPLES.glob("*.yaml"))
# Values of the chart, not a manifest.
MANIFESTS.remove(EXAMPLES / "demo-values.yaml")
POOLS = load([str(EXAMPLES / "pools.yaml")]).pools
JOBS = [(path, job) for path in MANIFESTS for job in load([str(path)]).jobs]


def names(value: object) -> str:
    return value.name if isinstance(value, Path | Job) else ""


@pytest.mark.parametrize("path", MANIFESTS, ids=names)
def test_an_example_is_valid(path: Path) -> None:
    bundle = load([str(path)])
    assert bundle.jobs or bundle.pools or path.name == "demo-namespace.yaml"


@pytest.mark.parametrize(("path", "job"), JOBS, ids=names)
def test_an_example_is_planned_with_the_example_pools(path: Path, job: Job) -> None:
    plan = resolve(job, POOLS)
    assert load_plan(plan.model_dump_json(by_alias=True, exclude_none=True)) == plan


@pytest.mark.parametrize(("path", "job"), JOBS, ids=names)
def test_the_config_maps_of_an_example_are_with_it(path: Path, job: Job) -> None:
    there = {name for _, name in load([str(path)]).config_maps}
    assert set(resolve(job, POOLS).placement.config_maps) <= there


def test_each_example_is_in_the_index() -> None:
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.yaml") if f"]({path.name})" not in index] == []
    assert [path.name for path in EXAMPLES.glob("*.py") if f"`{path.name}`" not in index] == []


def test_each_method_has_an_example_that_can_be_applied() -> None:
    jobs = [job for path, job in JOBS if path.name == "methods.yaml"]
    assert {job.spec.method.type for job in jobs} == set(get_args(MethodType))
    starts = {job.spec.method.lora.initialization for job in jobs if job.spec.method.lora}
    assert starts == {"default", "pissa", "loftq"}


def test_the_common_case_takes_about_ten_lines() -> None:
    job = (EXAMPLES / "quickstart.yaml").read_text(encoding="utf-8").partition("---\n")[0]
    assert len(job.splitlines()) <= 10


def test_every_option_of_the_schema_that_this_version_has_is_in_every_option_yaml() -> None:
    ((_, job),) = [(path, job) for path, job in JOBS if path.name == "every-option.yaml"]
    lora, training = job.spec.method.lora, job.spec.training
    assert lora
    assert training
    # maxSteps stands instead of epochs; preferenceBeta is of another task; modulesToSave makes an adapter large.
    assert set(type(lora).model_fields) - lora.model_fields_set == {"modules_to_save"}
    assert set(type(training).model_fields) - training.model_fields_set == {"max_steps", "preference_beta"}
    assert set(type(job.spec).model_fields) - job.spec.model_fields_set == {"distributed", "credentials"}


def test_every_option_yaml_has_the_defaults_where_it_does_not_say_otherwise(tmp_path: Path) -> None:
    lines = (EXAMPLES / "every-option.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    file = tmp_path / "job.yaml"
    file.write_text("".join(line for line in lines if "# left out:" not in line), encoding="utf-8")
    (job,) = load([str(file)]).jobs
    (given,) = job.spec.dataset.train
    least = FineTuneJobSpec(task=job.spec.task, model=job.spec.model, dataset=DatasetSpec(train=[given]))
    plans = [resolve(replace(job, spec=spec), POOLS) for spec in (job.spec, least)]
    lora = plans[0].training.method.lora
    assert lora
    assert lora.target_modules == "all-linear"
    given_, left_out = (plan.training.model_dump() for plan in plans)
    assert given_["artifact"].pop("onnx_required"), "it asks for ONNX"
    assert not left_out["artifact"].pop("onnx_required")
    assert given_ == left_out
    assert plans[0].placement == plans[1].placement


def test_the_images_of_the_demo_are_those_that_are_built_here() -> None:
    # The README puts a registry in the place of `localhost`.
    files = [(EXAMPLES / name).read_text(encoding="utf-8") for name in ("demo-values.yaml", "demo-namespace.yaml")]
    values = yaml.safe_load(files[0])
    images = {f"{image['repository']}:{image['tag']}" for image in (values["image"], values["trainer"]["image"])}
    assert images == {"localhost/strop-operator:dev", "localhost/strop-trainer:dev"}
    assert re.findall(r"image: (\S+)", files[1]) == ["localhost/strop-trainer:dev"]


def test_the_size_of_each_model_is_known() -> None:
    assert [job.name for _, job in JOBS if model_facts(job.spec.model).parameters is None] == []


def test_the_rows_in_the_quickstart_are_those_of_examples_data() -> None:
    source = importlib.util.spec_from_file_location("embed_data", EXAMPLES / "embed_data.py")
    assert source
    assert source.loader
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    text = (EXAMPLES / "quickstart.yaml").read_text(encoding="utf-8")
    assert module.embedded(text, EXAMPLES / "data") == text
    bundle = load([str(EXAMPLES / "quickstart.yaml")])
    for name, content in bundle.config_maps["default", "quickstart-data"].items():
        assert content == (EXAMPLES / "data" / name).read_bytes()


def test_the_quickstart_can_be_applied_by_kubectl() -> None:
    # A client-side apply keeps the whole object in an annotation, of which the API server takes 256 KiB.
    assert (EXAMPLES / "quickstart.yaml").stat().st_size < 256 * 1024
