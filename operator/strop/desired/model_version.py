"""The ModelVersion: the record of what a trainer published."""

from __future__ import annotations

from strop.api import names
from strop.desired.metadata import Manifest, Owner
from strop_trainer.addresses import shown
from strop_trainer.plan import Plan
from strop_trainer.termination import PublishedVersion


def version_name(published: PublishedVersion) -> str:
    """Return the name of the ModelVersion."""
    return f"{published.model}-v{published.version}"


def build_model_version(
    plan: Plan, owner: Owner, published: PublishedVersion, name: str, published_at: str
) -> Manifest:
    """Return the ModelVersion. It has no owner: it outlives its job.

    Args:
        plan: What was carried out.
        owner: The job.
        published: The trainer's own account.
        name: Name of the object.
        published_at: When the trainer ended (RFC 3339).
    """
    training = plan.training
    revision = published.base_commit or training.model.revision
    before, after = published.metrics_base, published.metrics_tuned
    return {
        "apiVersion": names.API_VERSION,
        "kind": "ModelVersion",
        "metadata": {
            "name": name,
            "namespace": owner.namespace,
            "labels": {
                names.LABEL_MANAGED_BY: names.FIELD_MANAGER,
                names.LABEL_MODEL: published.model,
                names.LABEL_JOB: owner.name,
            },
            "annotations": {names.ANNOTATION_PLAN_DIGEST: published.plan_digest},
        },
        "spec": {
            "model": published.model,
            "version": published.version,
            "task": training.task,
            "method": training.method.type,
            "registry": {
                "claim": plan.placement.output.claim,
                "path": published.path,
                "sizeBytes": published.size_bytes,
                "manifestSha256": published.manifest_sha256,
            },
            "planDigest": published.plan_digest,
            "baseModel": {
                "source": shown(training.model.source),
                **({"revision": revision} if revision else {}),
                "fingerprint": published.base_fingerprint,
            },
            "dataset": {
                "fingerprint": published.dataset_fingerprint,
                "trainRows": published.train_rows,
                "validationRows": published.validation_rows,
            },
            "metrics": [
                {
                    "name": metric,
                    **({"base": before[metric]} if metric in before else {}),
                    **({"tuned": after[metric]} if metric in after else {}),
                }
                for metric in sorted({*before, *after})
            ],
            "proofs": [proof.model_dump(by_alias=True, exclude_none=True) for proof in published.proofs],
            "job": {"name": owner.name, "uid": owner.uid},
            "publishedAt": published_at,
        },
    }
