"""Whether activations are recomputed where the plan leaves it open: as its placement says, in what is loaded."""

from typing import Any

import pytest

from strop_trainer import __main__ as trainer
from strop_trainer import stages
from strop_trainer.context import Clock, StopRequest
from strop_trainer.plan import Plan
from strop_trainer.recomputation import choose_checkpointing
from tests.support.models import tiny_llama
from tests.support.training import Surroundings, make_plan

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")]


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Surroundings:
    surroundings = Surroundings(tmp_path_factory.mktemp("recomputation"))
    surroundings.write_rows()
    tiny_llama(surroundings.volumes / "models" / "tiny")
    return surroundings


def open_plan(placed: bool | None, **placement: Any) -> Plan:
    plan = make_plan(hyperparameters={"gradient_checkpointing": "auto"})
    update = {"gradient_checkpointing": placed, **placement}
    return plan.model_copy(update={"placement": plan.placement.model_copy(update=update)})


@pytest.mark.parametrize(
    ("placed", "on", "words"),
    [
        (False, False, "gradient checkpointing: off (all activations fit, by the planner's estimate)"),
        (True, True, "gradient checkpointing: on (as planned"),
        (None, True, "gradient checkpointing: on (the plan does not say"),
    ],
)
def test_what_is_loaded_is_as_the_placement_says(
    around: Surroundings, capsys: pytest.CaptureFixture[str], placed: bool | None, on: bool, words: str
) -> None:
    plan = open_plan(placed)
    run = trainer.start(around.variables(plan), StopRequest(), Clock())
    for stage in (stages.check, stages.fetch, stages.prepare):
        stage(run)
    assert run.loaded.base.is_gradient_checkpointing is on
    assert words in capsys.readouterr().out
    assert run.plan.training.hyperparameters.gradient_checkpointing is on
    assert run.plan.digest == plan.digest
    assert run.given == plan, "what the version tells of"


@pytest.mark.parametrize(
    ("device", "fp32", "missing", "on"),
    [("cpu", False, 1, False), ("cpu", True, 0, False), ("cpu", True, 1, True), ("cuda", True, 0, True)],
)
def test_an_estimate_for_bf16_says_nothing_of_fp32(device: str, fp32: bool, missing: int, on: bool) -> None:
    placement = open_plan(False, fp32_memory=(4 << 30) + missing).placement
    found, why = choose_checkpointing(placement, device, fp32=fp32)
    assert found is on
    assert ("fp32" in why) is on
