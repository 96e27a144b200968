"""What a job is computed on."""

from pathlib import Path

import pytest

from strop_trainer.device import choose_device
from strop_trainer.errors import TrainerError
from strop_trainer.exit_codes import ExitCode
from tests.support.models import tiny_llama
from tests.support.training import Surroundings, make_plan

pytestmark = pytest.mark.trainer


@pytest.mark.parametrize(
    ("accelerators", "found", "device"), [(0, None, "cpu"), (0, "cuda", "cpu"), (1, "cuda", "cuda"), (1, "xpu", "xpu")]
)
def test_the_plan_says_whether_an_accelerator_is_used(accelerators: int, found: str | None, device: str) -> None:
    assert choose_device(accelerators, found, "2.15.0") == device


def test_an_accelerator_is_not_held_for_nothing() -> None:
    with pytest.raises(TrainerError) as refused:
        choose_device(1, None, "2.15.0+cpu")
    assert refused.value.exit_code is ExitCode.BAD_CONFIGURATION
    assert "compute.resources.accelerators: found 1, but torch 2.15.0+cpu of this image can use none" in str(
        refused.value
    )
    assert "VARIANT=cuda" in str(refused.value)


def test_a_job_whose_pod_has_an_accelerator_that_torch_cannot_use(tmp_path: Path) -> None:
    """The whole trainer: no accelerator is here, and the plan asks for one."""
    around = Surroundings(tmp_path)
    around.write_rows()
    tiny_llama(around.volumes / "models" / "tiny")
    plan = make_plan()
    resources = plan.placement.resources.model_copy(update={"accelerator": "nvidia.com/gpu", "accelerators": 1})
    placement = plan.placement.model_copy(update={"resources": resources})
    ended = around.run(plan.model_copy(update={"placement": placement}))
    assert ended.code == ExitCode.BAD_CONFIGURATION, ended
    assert "compute.resources.accelerators: found 1" in ended.message.message
