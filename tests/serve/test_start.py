"""Tests what makes the start of `genray serve` short, without starting Ray."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from genray.errors import RunFault
from genray.gen import builders
from genray.ray_processes import few_processes
from serve import launch
from serve.private_ray import frequent_polls

ROOT = Path(__file__).parents[2]


def run(code: str) -> None:
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_genray_serve_and_rays_processes_do_not_import_pytorch():
    run("import sys, serve.launch, serve.app\nassert not {'torch', 'scipy'} & sys.modules.keys()")


def test_preload_imports_ray_serve_without_pandas():
    run(
        "import sys, serve.preload\n"
        "assert 'ray.serve' in sys.modules and not {'pandas', 'pyarrow'} & sys.modules.keys()\n"
        "import pandas\n"
        "assert pandas.DataFrame"
    )


def test_loading_a_model_imports_no_other_kind():
    run(
        "import sys\n"
        "from genray.gen.builders import BUILDERS\n"
        "import genray.gen.gan.networks\n"
        "assert 'genray.gen.gan.task' not in sys.modules and 'sklearn' not in sys.modules\n"
        "assert 'genray.gen.autoencoder.model' not in sys.modules"
    )


def test_builders_name_functions_that_exist():
    for build in builders.BUILDERS.values():
        values = [cell.cell_contents for cell in build.__closure__]  # type: ignore[attr-defined]
        module, name = sorted(values, key=lambda text: "." not in text)
        assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("dashboard", [True, False])
def test_few_processes_are_started(dashboard: bool):
    from ray._private import parameter, services

    before = parameter.RayParams, services.start_api_server
    with few_processes(dashboard):
        made = parameter.RayParams(num_cpus=2)
        assert made.no_monitor is True and made.include_log_monitor is False
        assert made.dashboard_agent_listen_port == 0 and made.num_cpus == 2
        assert (services.start_api_server is before[1]) is dashboard
    assert (parameter.RayParams, services.start_api_server) == before


def test_frequent_polls_end_with_the_block():
    from ray.serve._private import client

    before = client.CLIENT_POLLING_INTERVAL_S
    with frequent_polls():
        assert before > client.CLIENT_POLLING_INTERVAL_S
    assert before == client.CLIENT_POLLING_INTERVAL_S


def test_a_failed_start_starts_no_second_ray(monkeypatch: pytest.MonkeyPatch):
    import ray

    def started(*_: object, **__: object) -> None:
        pytest.fail("Ray was started to find the cause")

    monkeypatch.setattr(ray, "init", started)
    with pytest.raises(RunFault, match="the GCS is overloaded"):
        with launch._failures_of_ray():
            raise Exception("the GCS is overloaded")
