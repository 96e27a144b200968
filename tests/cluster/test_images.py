"""The images run as the chart runs them: as nobody, on a read-only root file system, with nothing they do not need."""

import json
import tarfile

import pytest

from tests.support.cluster import OPERATOR_IMAGE, TRAINER_IMAGE, Cluster, image_archive
from tests.support.pods import restricted_pod, run_to_end

pytestmark = pytest.mark.cluster

OPERATOR_BYTES = 200e6
TRAINER_BYTES = 2.5e9

TRAIN_A_STEP = """
import tempfile
import matplotlib.pyplot, onnx, onnxruntime, onnxruntime_genai, peft, tokenizers, torch, transformers
import bitsandbytes, pyarrow.parquet, rouge_score, sacrebleu, seqeval, sklearn.metrics
assert not torch.cuda.is_available()
config = transformers.LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
)
model = peft.get_peft_model(transformers.LlamaForCausalLM(config), peft.LoraConfig(target_modules="all-linear"))
ids = torch.arange(32).reshape(2, 16)
before = model(input_ids=ids, labels=ids).loss
before.backward()
torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
assert model(input_ids=ids, labels=ids).loss != before
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
print("trained")
"""
TMP = {"volumes": [{"name": "tmp", "emptyDir": {}}], "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}  # noqa: S108


def unpacked_bytes(name: str) -> int:
    """Returns the size of an image's layers, unpacked."""
    with tarfile.open(image_archive(name)) as archive:
        member = archive.extractfile("manifest.json")
        assert member is not None
        layers = json.load(member)[0]["Layers"]
        return sum(archive.getmember(layer).size for layer in layers)


@pytest.mark.parametrize(
    ("name", "limit"),
    [("strop-operator", OPERATOR_BYTES), ("strop-trainer", TRAINER_BYTES)],
    ids=["operator", "trainer"],
)
def test_image_is_small(name: str, limit: float) -> None:
    assert unpacked_bytes(name) < limit


@pytest.mark.parametrize("image", [OPERATOR_IMAGE, TRAINER_IMAGE], ids=["operator", "trainer"])
def test_image_does_not_run_as_root(cluster: Cluster, namespace: str, image: str) -> None:
    pod = restricted_pod("who", ["id", "-u"], image=image)
    # runAsNonRoot then rests on the image's own user.
    del pod["spec"]["securityContext"]["runAsUser"]
    assert run_to_end(cluster.kubectl, namespace, pod).strip() == "65532"


def test_operator_image_starts_and_holds_no_torch(cluster: Cluster, namespace: str) -> None:
    script = """
import importlib, importlib.util, pkgutil
import strop, kopf
for package in ("strop", "strop_trainer.plan"):
    found = importlib.import_module(package)
    for module in pkgutil.walk_packages(getattr(found, "__path__", []), f"{package}."):
        importlib.import_module(module.name)
for name in ("torch", "transformers", "pip", "hatchling", "uv"):
    assert importlib.util.find_spec(name) is None, name
print("started")
"""
    pod = restricted_pod("starts", ["python", "-c", script], image=OPERATOR_IMAGE)
    assert run_to_end(cluster.kubectl, namespace, pod).strip() == "started"


def test_operator_image_has_the_command_line(cluster: Cluster, namespace: str) -> None:
    pod = restricted_pod("version", ["strop", "--version"], image=OPERATOR_IMAGE)
    assert run_to_end(cluster.kubectl, namespace, pod).startswith("strop 0.")


def test_trainer_image_trains_on_cpu(cluster: Cluster, namespace: str) -> None:
    pod = restricted_pod("trains", ["python", "-W", "ignore", "-c", TRAIN_A_STEP], image=TRAINER_IMAGE, **TMP)
    assert run_to_end(cluster.kubectl, namespace, pod, timeout=300).strip().endswith("trained")


def test_trainer_image_holds_no_operator_and_no_tools(cluster: Cluster, namespace: str) -> None:
    script = """
import importlib.util
import strop_trainer.plan
for name in ("strop", "kopf", "kubernetes", "triton", "pip", "hatchling", "uv"):
    assert importlib.util.find_spec(name) is None, name
print("clean")
"""
    pod = restricted_pod("clean", ["python", "-c", script], image=TRAINER_IMAGE)
    assert run_to_end(cluster.kubectl, namespace, pod).strip() == "clean"


def test_bytecode_is_in_the_image(cluster: Cluster, namespace: str) -> None:
    script = """
import importlib.util, pathlib
for name in ("strop_trainer.plan", "pydantic.main", "transformers.modeling_utils"):
    spec = importlib.util.find_spec(name)
    assert pathlib.Path(spec.cached).exists(), spec.cached
print("compiled")
"""
    pod = restricted_pod("compiled", ["python", "-W", "ignore", "-c", script], image=TRAINER_IMAGE, **TMP)
    assert run_to_end(cluster.kubectl, namespace, pod).strip().endswith("compiled")
