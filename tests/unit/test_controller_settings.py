from typing import Any

import pytest

from strop.controller.settings import Settings

REQUIRED = {
    "STROP_NAMESPACE": "strop-system",
    "STROP_TRAINER_IMAGE": "registry.example/strop-trainer:1",
    "STROP_PROGRESS_URL": "https://strop-progress.strop-system.svc:8443/",
}


def test_three_variables_are_enough() -> None:
    settings = Settings.from_environment(REQUIRED)
    assert settings.namespace == "strop-system"
    assert settings.progress_url == "https://strop-progress.strop-system.svc:8443"
    assert settings.watch_namespaces == ()
    assert settings.leader_election
    assert settings.workers == 8


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_a_missing_required_variable_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: not set"):
        Settings.from_environment({key: value for key, value in REQUIRED.items() if key != name})


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("STROP_WATCH_NAMESPACES", "a, b,,", "watch_namespaces", ("a", "b")),
        ("STROP_OPERATOR_LABELS", "app=strop,release=x", "operator_labels", {"app": "strop", "release": "x"}),
        ("STROP_LEADER_ELECTION", "False", "leader_election", False),
        ("STROP_TRAINER_PULL_POLICY", "Never", "trainer_pull_policy", "Never"),
        ("STROP_TRAINER_PULL_SECRETS", "one,two", "trainer_pull_secrets", ("one", "two")),
        ("STROP_LEASE_SECONDS", "4.5", "lease_seconds", 4.5),
        ("STROP_METRICS_PORT", "9090", "metrics_port", 9090),
    ],
)
def test_each_kind_of_variable_is_read(name: str, text: str, field: str, value: Any) -> None:
    assert getattr(Settings.from_environment({**REQUIRED, name: text}), field) == value


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("STROP_LEADER_ELECTION", "yes", "allowed are true and false"),
        ("STROP_METRICS_PORT", "70000", "a number from 0 to 65535"),
        ("STROP_WORKERS", "many", "found 'many'"),
        ("STROP_LOG_LEVEL", "LOUD", "DEBUG, INFO, WARNING, ERROR"),
        ("STROP_OPERATOR_LABELS", "app", "key=value"),
        ("STROP_PROGRESS_URL", "http://plain:80", "https://host:port"),
        ("STROP_PROGRESS_URL", "https://host:8443/path", "https://host:port"),
    ],
)
def test_a_wrong_value_says_what_is_allowed(name: str, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=name) as error:
        Settings.from_environment({**REQUIRED, name: text})
    assert words in str(error.value)
