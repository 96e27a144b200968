"""Fine-tuning methods: one file a kind; `loading` makes a model ready to train."""

from strop_trainer.methods.checks import check_experts, check_method
from strop_trainer.methods.loading import (
    LoadedModel,
    check_architecture,
    check_vocabulary,
    load_adapter,
    load_model,
    load_tokenizer,
    prepare_method,
)

__all__ = [
    "LoadedModel",
    "check_architecture",
    "check_experts",
    "check_method",
    "check_vocabulary",
    "load_adapter",
    "load_model",
    "load_tokenizer",
    "prepare_method",
]
