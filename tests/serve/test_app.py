"""How the application is put together: arguments, keys, the cluster's configuration, HAProxy's stand-in."""

from pathlib import Path

import pytest
import yaml

from genray.errors import ConfigError
from serve.app import build
from serve.haproxy import closed
from serve.launch import ServeLaunch, keys_in_environment
from serve.tour import tour
from tests.serve.conftest import Web

ROOT = Path(__file__).parents[2]
KEY = "a-key-of-this-test-0001"


def test_the_clusters_configuration_is_one_that_serve_accepts(monkeypatch: pytest.MonkeyPatch):
    from ray.serve.schema import ServeDeploySchema

    parsed = ServeDeploySchema.model_validate(yaml.safe_load((ROOT / "serve" / "config.yaml").read_text()))
    application = parsed.applications[0]
    assert application.import_path == "serve.app:build"
    monkeypatch.setenv("GENRAY_API_KEY", KEY)
    deployment = build(application.args)._bound_deployment
    assert deployment.max_ongoing_requests >= 64
    scaling = deployment._deployment_config.autoscaling_config
    assert scaling is not None and (scaling.min_replicas, scaling.max_replicas) == (1, 8)


def test_without_a_key_a_cluster_is_not_served_by_accident(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GENRAY_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="GENRAY_API_KEY"):
        build({"models_dir": "x"})
    build({"models_dir": "x", "open": True})


def test_unknown_arguments_are_named(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="modelsdir: no such argument; there are .*models_dir"):
        build({"modelsdir": "x", "open": True})


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GENRAY_API_KEY", f" {KEY}, other-key-of-this-0002,,")
    assert keys_in_environment() == (KEY, "other-key-of-this-0002")


def test_haproxys_open_binds_are_closed_and_others_left():
    configuration = (
        "frontend prometheus\n    bind :9101\n    mode http\nlisten stats\n  bind *:8404\n"
        "frontend f\n    bind 10.0.0.1:80\n"
    )
    assert closed(configuration) == (
        "frontend prometheus\n    bind 127.0.0.1:9101\n    mode http\nlisten stats\n  bind 127.0.0.1:8404\n"
        "frontend f\n    bind 10.0.0.1:80\n"
    )


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        (ServeLaunch(port=70_000), "--port 70000"),
        (ServeLaunch(replicas=0), "--replicas 0"),
        (ServeLaunch(host="192.0.2.1"), "--host"),
    ],
)
def test_launches_that_make_no_sense(launch: ServeLaunch, message: str):
    with pytest.raises(ConfigError, match=message):
        launch.validate(())


def test_the_tour_passes_every_kind_of_route_without_a_refusal(web: Web):
    visits = tour(web.url)
    assert [visit for visit in visits if visit.status != 200] == []
    called = {visit.path.replace("digits-vae", "NAME") for visit in visits}
    assert {
        "/v1/images/generations",
        "/v1/images/edits",
        "/api/walk/NAME",
        "/api/retrieve/NAME",
        "/api/play/road-runner",
    } <= called
    assert {f"/v2/models/NAME.{each}/infer" for each in ("encode", "decode", "generate", "reconstruct")} <= called
