"""What the fields' descriptions say of a value left out is what the planner chooses."""

import re

import pytest

from strop.api.computepool import ComputePoolSpec
from strop.api.finetunejob import FineTuneJob
from strop.planning.inputs import Job, Pool
from strop.planning.resolve import resolve
from tests.support.crd.documents import MINIMAL, place
from tests.support.crd_schema import parts, root

DEFAULTS = {path.removeprefix("spec."): part.get("default") for path, part in parts(root("FineTuneJob"))}
DESCRIPTIONS = {
    path.removeprefix("spec."): part["description"]
    for path, part in parts(root("FineTuneJob"))
    if "description" in part
}
BY_JOB_MODEL_OR_POOL = {
    "output.model",
    "compute.pool",
    "compute.resources.cpu",
    "compute.resources.memory",
    "training.learningRate",
    "training.microBatchSize",
    "training.gradientCheckpointing",
    "checkpoint.everySteps",
    "checkpoint.size",
    "method.lora.targetModules",
    "output.onnx.precisions",
    "model.chatTemplate",
    "model.revision",
}


def chosen() -> dict[str, object]:
    job = FineTuneJob.model_validate(
        place(MINIMAL["FineTuneJob"], "spec.model.source", "hf://HuggingFaceTB/SmolLM2-135M-Instruct")
    )
    pool = Pool(name="cpu", spec=ComputePoolSpec(cpu_per_node="8", memory_per_node="64Gi"))
    plan = resolve(Job(namespace="default", name="minimal", spec=job.spec), [pool])
    return {each.field: each.value for each in plan.resolved if each.field in DESCRIPTIONS}


CHOSEN = chosen()


def test_the_planner_chooses_what_is_described() -> None:
    assert {"method.lora.rank", "training.epochs", "evaluation.maxRows"} <= set(CHOSEN)


@pytest.mark.parametrize("field", sorted(set(CHOSEN) - BY_JOB_MODEL_OR_POOL))
def test_the_description_tells_the_value(field: str) -> None:
    value = CHOSEN[field]
    if DEFAULTS.get(field) is not None:
        assert DEFAULTS[field] == value
        return
    told = re.search(r"Left out: ([\w.-]*\w)", DESCRIPTIONS[field])
    assert told, f"{field} is {value!r} where it is left out: {DESCRIPTIONS[field]}"
    if isinstance(value, bool):
        assert told[1] == str(value).lower()
    elif isinstance(value, int | float):
        assert float(told[1]) == value
    else:
        assert told[1] == (value or "none")
