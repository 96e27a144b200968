"""Admission's answer in words: field, found, allowed."""

from typing import Any

import pytest

from strop.api.computepool import ComputePool
from strop.api.finetunejob import FineTuneJob, FineTuneJobSpec
from strop.api.modelversion import ModelVersion
from strop.planning.validation import InvalidResourceError, read_resource, read_spec
from tests.support.crd.bounds import BOUNDS
from tests.support.crd.cases import Bound
from tests.support.crd.documents import FULL, place, place_all
from tests.support.planning import manifest_of

MODELS = {"FineTuneJob": FineTuneJob, "ComputePool": ComputePool, "ModelVersion": ModelVersion}


def problems(**fields: Any) -> list[str]:
    with pytest.raises(InvalidResourceError) as refused:
        read_resource(FineTuneJob, manifest_of(**fields))
    return [str(problem) for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"method__lora__rank": 0}, "spec.method.lora.rank: found 0, allowed: a whole number, 1 to 1024"),
        ({"method__lora__rank": 1.5}, "spec.method.lora.rank: found 1.5, allowed: a whole number, 1 to 1024"),
        (
            {"training__learningRate": "2e-4"},
            "spec.training.learningRate: found '2e-4', allowed: a number, more than 0, up to 1; it is text here: "
            "write it without quotes",
        ),
        (
            {"training__learningRate": True},
            "spec.training.learningRate: found true, allowed: a number, more than 0, up to 1",
        ),
        ({"method__lora__dropout": 1}, "spec.method.lora.dropout: found 1, allowed: a number, 0 to less than 1"),
        ({"method__lora__rnk": 8}, "spec.method.lora.rnk: unknown field; did you mean rank?"),
        ({"training__learning_rate": 1}, "spec.training.learning_rate: unknown field; did you mean learningRate?"),
        ({"compute__resources__gpu": 1}, "spec.compute.resources.gpu: unknown field; did you mean accelerators?"),
        (
            {"method__rank": 8},
            "spec.method.rank: unknown field, allowed: lora, prompt, type; it is method.lora.rank",
        ),
        ({"epochs": 3}, "ttlSecondsAfterFinished; it is training.epochs"),
        (
            {"task": None},
            "spec.task: missing: What the model learns to do; preference is DPO on pairs of answers, allow",
        ),
        (
            {"evaluation__minimum": {"exact_match": 80}},
            "spec.evaluation.minimum: found exact_match: 80; allowed: 0 to 1 for ",
        ),
        (
            {"training__effectiveBatchSize": 8, "training__microBatchSize": 3},
            "spec.training.effectiveBatchSize: found 8 with microBatchSize 3; must be a multiple of microBatchSize",
        ),
        (
            {"training__effectiveBatchSize": 8, "distributed__processesPerNode": 3},
            "spec.training.effectiveBatchSize: found 8 with 3 ranks; must be a multiple of",
        ),
        (
            {"task": "text-classification", "method__type": "p-tuning"},
            "spec.method.type: found p-tuning; text-classification and token-classification take lora, qlora, dora, "
            "ia3, full: tokens in front of a row are for models that answer in words",
        ),
        (
            {"task": "text-classification", "output__onnx__precisions": ["int4"]},
            "spec.output.onnx.precisions: found int4; text-classification",
        ),
        ({"dataset__train": [{"source": "file:///x/tr.csv"}]}, "with --volume claim=DIR"),
        ({"dataset__train": []}, "spec.dataset.train: found a list of 0, allowed: a list of 1 to 64 entries"),
        ({"dataset__train": {}}, "spec.dataset.train: found an object, allowed: a list of 1 to 64 entries"),
        ({"model": None}, "spec.model: missing: The base model"),
        ({"suspend": "yes"}, "spec.suspend: found 'yes', allowed: true or false"),
        ({"method": []}, "spec.method: found a list of 0, allowed: an object"),
        ({"output__model": "Foo"}, "spec.output.model: found 'Foo', allowed: lower-case letters, digits"),
        ({"output__model": 7}, "it is no text here: write it in quotes"),
        (
            {"compute__resources__memory": "8GB"},
            "spec.compute.resources.memory: found '8GB', allowed: a quantity such as 8Gi or 8G; did you mean 8G?",
        ),
        ({"compute__resources__memory": "8 gib"}, "did you mean 8Gi?"),
        ({"compute__resources__memory": 8}, "; it needs a unit, such as 8Gi"),
        ({"compute__resources__cpu": "2 cores"}, "allowed: a number of CPUs such as 2, 0.5 or 1500m; did you mean 2?"),
        ({"model__parameters": "135m"}, "did you mean 135M?"),
        ({"output__model": "My_Bot"}, "did you mean my-bot?"),
        ({"model__source": "gpt2/small"}, "did you mean hf://gpt2/small?"),
        ({"model__source": "hf://gpt2"}, "the owner is missing: did you mean hf://<owner>/gpt2?"),
        ({"model__source": "/models/phi"}, "allowed: hf://owner/name, pvc://claim/path or https://host/archive.tar.gz"),
        ({"dataset__train": [{"source": "hf://owner/name/rows.jsonl"}]}, "did you mean hf://datasets/owner/name/rows"),
        ({"dataset__train": "configmap://rows/a"}, "did you mean [{source: configmap://rows/a}]?"),
        ({"method": "lora"}, "spec.method: found 'lora', allowed: an object; did you mean {type: lora}?"),
        ({"task": "chatt"}, "spec.task: found 'chatt', allowed: chat"),
        ({"task": "chatt"}, "; did you mean chat?"),
        ({"training__precision": "fp8"}, "found 'fp8', allowed: auto, bf16, fp32 (this version)"),
        ({"training__precision": "fp16"}, "spec.training.precision: found fp16; this version of Strop trains in auto"),
        (
            {"evaluation__minimum": {"beauty": 1}},
            "spec.evaluation.minimum: found beauty; chat is measured by eval_loss, perplexity, token_accuracy, exact",
        ),
        (
            {"evaluation": {"minimum": {"exact_match": 0.5}, "generateRows": 0}},
            "spec.evaluation.generateRows: must be at least 1 for exact_match in evaluation.minimum",
        ),
        ({"evaluation__minimum": {"A B": 1}}, "allowed: keys that are the name of a metric: letters"),
        (
            {"evaluation__minimum": {"perplexity": "x"}},
            "spec.evaluation.minimum.perplexity: found 'x', allowed: a number",
        ),
        (
            {"dataset__train": [{"source": "pvc://a/../../b"}]},
            "spec.dataset.train[0].source: must not climb out of its folder",
        ),
        (
            {"dataset__train": [{"source": "hf://datasets/a/b//etc/x", "revision": "a" * 40}]},
            "spec.dataset.train[0].source: must have no empty part in its path",
        ),
        ({"training": {"preferenceBeta": 0.1}}, "spec.training.preferenceBeta: only for task preference"),
        ({"training__scheduler": "sine"}, "spec.training.scheduler: found 'sine', allowed: linear, cosine, constant"),
    ],
)
def test_a_problem_names_field_found_and_allowed(fields: dict[str, Any], words: str) -> None:
    (problem,) = problems(**fields)
    assert words in problem


def test_an_unknown_field_like_no_other_is_answered_with_those_there_are() -> None:
    (problem,) = problems(quantum=1)
    assert problem.startswith("spec.quantum: unknown field, allowed: activeDeadlineSeconds, ")


def test_every_problem_is_said_at_once() -> None:
    found = problems(method__lora__rank=0, training__epochs=-1, suspended=True)
    assert [problem.split(":")[0] for problem in found] == [
        "spec.method.lora.rank",
        "spec.training.epochs",
        "spec.suspended",
    ]


def test_two_broken_rules_of_one_object_are_two_problems() -> None:
    training = {"epochs": 1, "maxSteps": 2, "microBatchSize": 3, "effectiveBatchSize": 16}
    found = problems(training=training)
    assert [problem.split(":")[0] for problem in found] == [
        "spec.training.maxSteps",
        "spec.training.effectiveBatchSize",
    ]


def test_a_rule_of_the_whole_resource_names_its_field() -> None:
    (problem,) = problems(name="A" * 60)
    assert problem.startswith("metadata.name: a job's name has at most 50")


def test_a_spec_alone_is_blamed_by_the_same_paths() -> None:
    with pytest.raises(InvalidResourceError, match=r"^spec\.method\.lora\.rank: found 0") as refused:
        read_spec(FineTuneJob, FineTuneJobSpec, manifest_of(method__lora__rank=0)["spec"])
    assert len(refused.value.problems) == 1
    with pytest.raises(InvalidResourceError, match=r"^spec: found nothing, allowed: an object"):
        read_spec(FineTuneJob, FineTuneJobSpec, None)


def test_what_is_right_is_returned() -> None:
    resource = read_resource(FineTuneJob, manifest_of())
    assert resource.metadata.name == "job"


@pytest.mark.parametrize("case", BOUNDS, ids=lambda case: f"{case.kind}:{case.path}")
def test_every_bound_of_the_schema_is_answered_with_found_and_allowed(case: Bound) -> None:
    base = place_all(FULL[case.kind], case.beside)
    field = case.path.replace("[]", "[0]").removesuffix("{}")
    for value in case.reject.values():
        with pytest.raises(InvalidResourceError) as refused:
            read_resource(MODELS[case.kind], place(base, case.path, value))
        told = [problem for problem in refused.value.problems if problem.path.startswith(field)]
        assert told, (value, refused.value.problems)
        assert all(" allowed: " in problem.message for problem in told if "found" in problem.message)
        assert any("found" in problem.message for problem in told)
        assert not any("should" in problem.message for problem in told), "pydantic's own words"
