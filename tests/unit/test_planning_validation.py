"""Admission's answer in words: field, found, allowed."""

from typing import Any

import pytest

from strop.api.computepool import ComputePool
from strop.api.finetunejob import FineTuneJob, FineTuneJobSpec
from strop.api.modelversion import ModelVersion
from strop.planning.validation import InvalidResourceError, read_resource, read_spec
from tests.support.crd_cases import BOUNDS, FULL, Bound, place, place_all
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
        ({"dataset__train": []}, "spec.dataset.train: found a list of 0, allowed: a list of 1 to 64 entries"),
        ({"dataset__train": {}}, "spec.dataset.train: found an object, allowed: a list of 1 to 64 entries"),
        ({"model": None}, "spec.model: missing: The base model"),
        ({"suspend": "yes"}, "spec.suspend: found 'yes', allowed: true or false"),
        ({"method": []}, "spec.method: found a list of 0, allowed: an object"),
        ({"output__model": "Foo"}, "spec.output.model: found 'Foo', allowed: text matching"),
        ({"output__model": 7}, "it is no text here: write it in quotes"),
        ({"compute__resources__memory": "8Gb"}, "found '8Gb', allowed: Memory, such as 8Gi"),
        ({"evaluation__minimum": {"A B": 1}}, "allowed: keys matching ^[A-Za-z]"),
        ({"evaluation__minimum": {"a": "x"}}, "spec.evaluation.minimum.a: found 'x', allowed: a number"),
        (
            {"dataset__train": [{"source": "pvc://a/../../b"}]},
            "spec.dataset.train[0].source: must not climb out of its folder",
        ),
        ({"task": "translation"}, "spec.task: this version of Strop trains chat"),
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
