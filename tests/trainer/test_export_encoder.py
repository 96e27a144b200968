"""Encoders in ONNX whose weights are too many for the graph's own file."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from strop_trainer.export import encoder
from strop_trainer.tasks.labelled import LabelledExample
from tests.support.models import tiny_encoder

pytestmark = pytest.mark.trainer


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_weights_beside_the_graph_are_those_of_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Any, beside: bool
) -> None:
    folder, merged = tiny_encoder(tmp_path / "base"), tmp_path / "merged"
    AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(merged)
    AutoTokenizer.from_pretrained(folder).save_pretrained(merged)
    if beside:
        monkeypatch.setattr(encoder, "EXTERNAL_BYTES", 0)
    out, example = tmp_path / "onnx", LabelledExample([1, 2, 3, 4, 5], [])
    kind = "AutoModelForSequenceClassification"
    encoder.export_encoder(merged, out, precision, auto_class=kind, outputs=["logits"], example=example)
    files = {path.name for path in out.iterdir() if "onnx" in path.name or path.is_dir()}
    assert files == ({"model.onnx", "model.onnx.data"} if beside else {"model.onnx"})
    assert encoder.weight_precision(out / "model.onnx") == precision
    session = onnxruntime.InferenceSession(out / "model.onnx")
    ids = np.array([[1, 2, 3, 4, 5]])
    (found,) = session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    (expected,) = encoder.run_torch(merged, kind, ["logits"], [[example]])
    assert np.abs(found[0] - expected[0]).max() < (1e-4 if precision == "fp32" else 0.05)
