"""Automatic values: what they are, what they go by, and that the user's word counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.planning.chooser import Chooser
from strop.planning.inputs import PlanError
from strop.planning.presets import model_facts
from strop.planning.resolve import resolve, resolve_training
from strop_trainer.plan import TrainingPlan
from tests.support.planning import job_of, pool_of


def training_of(**fields) -> TrainingPlan:
    return reasoned(**fields)[0]


def reasoned(**fields) -> tuple[TrainingPlan, dict[str, str]]:
    spec = job_of(**fields).spec
    chooser = Chooser()
    training = resolve_training(spec, model_facts(spec.model), chooser)
    return training, {resolution.field: resolution.reason for resolution in chooser.resolved}


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("method__lora__rank", 4, lambda t: t.method.lora.rank),
        ("method__lora__alpha", 8, lambda t: t.method.lora.alpha),
        ("method__lora__dropout", 0.25, lambda t: t.method.lora.dropout),
        ("method__lora__targetModules", ["q_proj"], lambda t: t.method.lora.target_modules),
        ("method__lora__modulesToSave", ["norm"], lambda t: t.method.lora.modules_to_save),
        ("method__lora__useRslora", True, lambda t: t.method.lora.use_rslora),
        ("method__lora__plusRatio", 16, lambda t: t.method.lora.plus_ratio),
        ("method__lora__initialization", "pissa", lambda t: t.method.lora.initialization),
        ("training__learningRate", 0.5, lambda t: t.hyperparameters.learning_rate),
        ("training__scheduler", "constant", lambda t: t.hyperparameters.scheduler),
        ("training__warmupRatio", 0.0, lambda t: t.hyperparameters.warmup_ratio),
        ("training__weightDecay", 0.5, lambda t: t.hyperparameters.weight_decay),
        ("training__maxGradNorm", 0.5, lambda t: t.hyperparameters.max_grad_norm),
        ("training__epochs", 0.5, lambda t: t.hyperparameters.epochs),
        ("training__maxSteps", 7, lambda t: t.hyperparameters.max_steps),
        ("training__effectiveBatchSize", 6, lambda t: t.hyperparameters.effective_batch_size),
        ("training__microBatchSize", 3, lambda t: t.hyperparameters.micro_batch_size),
        ("training__maxLength", 64, lambda t: t.hyperparameters.max_length),
        ("training__packing", False, lambda t: t.hyperparameters.packing),
        ("training__precision", "fp32", lambda t: t.hyperparameters.precision),
        ("training__gradientCheckpointing", True, lambda t: t.hyperparameters.gradient_checkpointing),
        ("training__seed", 0, lambda t: t.hyperparameters.seed),
        ("training__deterministic", False, lambda t: t.hyperparameters.deterministic),
        ("evaluation__everySteps", 9, lambda t: t.evaluation.every_steps),
        ("evaluation__maxRows", 9, lambda t: t.evaluation.max_rows),
        ("evaluation__generateRows", 0, lambda t: t.evaluation.generate_rows),
        ("evaluation__maxNewTokens", 9, lambda t: t.evaluation.max_new_tokens),
        ("evaluation__minimum", {"exact_match": 0.5}, lambda t: t.evaluation.minimum),
        ("evaluation__maximum", {"eval_loss": 1.0}, lambda t: t.evaluation.maximum),
        ("checkpoint__everySteps", 9, lambda t: t.checkpoint.every_steps),
        ("checkpoint__keep", 9, lambda t: t.checkpoint.keep),
        ("dataset__validationSplit", 0.25, lambda t: t.dataset.validation_split),
        ("dataset__maxRows", 1000, lambda t: t.dataset.max_rows),
        ("dataset__format", "jsonl", lambda t: t.dataset.format),
        ("output__merged", True, lambda t: t.artifact.merged),
        (
            "output__onnx",
            {"enabled": True, "form": "merged", "precisions": ["int4"]},
            lambda t: {"enabled": True, "form": "merged", "precisions": t.artifact.onnx},
        ),
    ],
)
def test_what_the_user_gives_is_taken_and_needs_no_reason(field: str, value: object, read) -> None:
    training, reasons = reasoned(**{field: value})
    assert read(training) == value
    assert not [name for name in reasons if name.startswith(field.replace("__", "."))]


def test_export_can_be_turned_off() -> None:
    assert training_of(output__onnx={"enabled": False}).artifact.onnx == []


def test_a_short_run_warms_up_longer() -> None:
    assert training_of(training__maxSteps=30).hyperparameters.warmup_ratio == 0.1
    assert training_of(training__maxSteps=1000).hyperparameters.warmup_ratio == 0.03
    assert training_of().hyperparameters.warmup_ratio == 0.03


def test_steps_that_are_given_leave_the_epochs_unexplained() -> None:
    assert "training.epochs" not in reasoned(training__maxSteps=30)[1]


def test_few_rows_make_small_batches() -> None:
    assert training_of(dataset__maxRows=100).hyperparameters.effective_batch_size == 8
    assert training_of(dataset__maxRows=10_000).hyperparameters.effective_batch_size == 16


@given(
    micro=st.one_of(st.none(), st.integers(1, 64)),
    effective=st.one_of(st.none(), st.integers(1, 256)),
    length=st.integers(16, 8192),
    rows=st.one_of(st.none(), st.integers(2, 1000)),
)
def test_the_effective_batch_is_always_a_multiple_of_the_micro_batch(
    micro: int | None, effective: int | None, length: int, rows: int | None
) -> None:
    if micro is not None and effective is not None:
        effective = max(1, effective // micro) * micro
    given_ = {"microBatchSize": micro, "effectiveBatchSize": effective, "maxLength": length}
    training = training_of(training=given_, dataset__maxRows=rows).hyperparameters
    assert training.effective_batch_size % training.micro_batch_size == 0
    if micro is None:
        assert training.micro_batch_size == 1 or training.micro_batch_size * training.max_length <= 2048


def test_a_batch_that_was_rounded_says_why() -> None:
    training, reasons = reasoned(training__microBatchSize=5)
    assert training.hyperparameters.effective_batch_size == 20
    assert "multiple of microBatchSize 5" in reasons["training.effectiveBatchSize"]


def test_checkpointing_is_for_models_that_need_it() -> None:
    assert training_of().hyperparameters.gradient_checkpointing is False
    assert training_of(model__source="hf://Qwen/Qwen3-8B").hyperparameters.gradient_checkpointing == "auto"
    assert training_of(model__source="pvc://models/unknown").hyperparameters.gradient_checkpointing == "auto"


def test_a_row_may_not_be_longer_than_the_model_reads() -> None:
    with pytest.raises(PlanError) as refused:
        training_of(training__maxLength=9000)
    assert refused.value.reason == "Invalid"
    assert refused.value.message.startswith("spec.training.maxLength: found 9000, allowed: up to 8192")


def test_a_model_of_short_context_gets_a_shorter_length() -> None:
    training = training_of(model__source="hf://microsoft/phi-2", training__maxLength=2048)
    assert training.hyperparameters.max_length == 2048
    assert training_of(model__source="pvc://models/unknown").hyperparameters.max_length == 1024


@pytest.mark.parametrize(
    ("fields", "every"),
    [
        ({}, 50),
        ({"training__maxSteps": 200}, 20),
        ({"training__maxSteps": 3}, 1),
        ({"dataset__maxRows": 1600, "training__epochs": 2}, 20),
    ],
)
def test_there_are_about_ten_checkpoints_where_the_steps_are_known(fields: dict, every: int) -> None:
    assert training_of(**fields).checkpoint.every_steps == every


def test_rows_that_are_named_are_not_split_off() -> None:
    training, reasons = reasoned(dataset__validation=[{"source": "pvc://d/held.jsonl"}])
    assert [file.source for file in training.dataset.validation] == ["pvc://d/held.jsonl"]
    assert "dataset.validationSplit" not in reasons


@pytest.mark.parametrize(("task", "tokens"), [("chat", 64), ("translation", 128), ("summarization", 128)])
def test_answers_have_the_length_of_their_task(task: str, tokens: int) -> None:
    training, reasons = reasoned(task=task)
    assert training.evaluation.max_new_tokens == tokens
    assert reasons["evaluation.maxNewTokens"] == ("short answers" if tokens == 64 else "a few sentences")


@pytest.mark.parametrize(
    ("training", "ranks", "expected"),
    [
        ({}, 2, (16, 2)),
        ({}, 3, (18, 2)),
        ({"microBatchSize": 4}, 3, (24, 4)),
        ({"effectiveBatchSize": 8}, 8, (8, 1)),
        ({"effectiveBatchSize": 8, "microBatchSize": 2}, 2, (8, 2)),
    ],
)
def test_each_rank_has_as_many_rows_of_a_step(training: dict[str, int], ranks: int, expected: tuple[int, int]) -> None:
    plan = resolve(job_of(training=training, distributed={"processesPerNode": ranks}), [pool_of(cpu_per_node="8")])
    found = plan.training.hyperparameters
    assert (found.effective_batch_size, found.micro_batch_size) == expected


def test_ranks_share_by_ddp_where_nothing_is_said() -> None:
    plan = resolve(job_of(distributed={"processesPerNode": 2}), [pool_of()])
    assert (plan.training.distributed.strategy, plan.training.distributed.world_size) == ("ddp", 2)
    assert any(item.field == "distributed.strategy" for item in plan.resolved)
    alone = resolve(job_of(), [pool_of()]).training.distributed
    assert (alone.strategy, alone.world_size) == ("none", 1)


@pytest.mark.parametrize(
    ("fields", "not_said"),
    [
        ({"method__type": "full"}, ("LoRA", "QLoRA")),
        ({"task": "text-classification"}, ("instruction data", "chat rows", "LoRA loses")),
        ({"task": "translation"}, ("instruction data", "chat rows")),
    ],
)
def test_reasons_are_those_of_the_task_and_the_method(fields: dict[str, str], not_said: tuple[str, ...]) -> None:
    asked = {"training.epochs", "training.effectiveBatchSize", "training.maxLength"}
    reasons = [each.reason for each in resolve(job_of(**fields), [pool_of()]).resolved if each.field in asked]
    assert len(reasons) == len(asked)
    assert not [reason for reason in reasons for words in not_said if words in reason]
