"""The credentials that kopf gets are those of our own client, wherever they come from."""

from pathlib import Path

import pytest
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.incluster_config import InClusterConfigLoader
from kubernetes.aio.config.kube_config import load_kube_config_from_dict

from strop.controller import kopf_app


async def login(configuration: Configuration, monkeypatch: pytest.MonkeyPatch) -> tuple[str | None, str]:
    """Returns token and server."""

    async def load() -> Configuration:
        return configuration

    monkeypatch.setattr(kopf_app, "load_configuration", load)
    found = await kopf_app._login()
    return found.token, found.server


async def test_a_pods_own_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client writes "bearer" in lower case there; kopf once got "bearer <token>", and every answer was 401."""
    (tmp_path / "token").write_text("secret")
    (tmp_path / "ca.crt").write_text("certificate")
    place = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    configuration = Configuration()
    loader = InClusterConfigLoader(str(tmp_path / "token"), str(tmp_path / "ca.crt"), environ=place)
    loader.load_and_set(configuration)
    assert await login(configuration, monkeypatch) == ("secret", "https://10.0.0.1:443")


async def test_the_token_of_a_kubeconfig(monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = Configuration()
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
    }
    await load_kube_config_from_dict(document, client_configuration=configuration)
    assert await login(configuration, monkeypatch) == ("secret", "http://127.0.0.1:1")


async def test_a_client_certificate_needs_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await login(Configuration(host="https://127.0.0.1:1"), monkeypatch))[0] is None
