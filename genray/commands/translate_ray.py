"""Translates many pictures on all CPUs of a Ray cluster, as a Ray Data pipeline.

[https://docs.ray.io/en/latest/data/batch_inference.html]
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from genray.distributed.session import ray_session
from genray.gen.images.pictures import PictureError
from genray.threads import own_threads

Translate = Callable[[Path, Path], Path]
"""Function of a picture and the path of its result, which it writes."""


class Worker:
    """A process of the pool: makes its translation once, and uses one thread.

    Args:
        make: function that loads the model and returns the translation.
    """

    def __init__(self, make: Callable[[], Translate]):
        self._translate = make()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Translate a picture. Returns the row with `error`, empty if the picture is readable."""
        try:
            with own_threads(1):
                self._translate(Path(row["source"]), Path(row["target"]))
        except PictureError as error:
            return {**row, "error": str(error)}
        return {**row, "error": ""}


def translate_all(
    work: Sequence[tuple[Path, Path]],
    make: Callable[[], Translate],
    *,
    address: str | None,
    workers: int = 0,
) -> list[str]:
    """Translate pictures on a cluster; returns the errors of the unreadable ones.

    Args:
        work: the path of each picture and of its result. All nodes must see the same files.
        make: picklable function that returns the translation in a worker.
        address: of the cluster, e.g. "auto"; None: a private Ray of this machine.
        workers: number of processes, each with one CPU; 0: the CPUs of the cluster.

    Raises ResourceError when the cluster cannot be joined.
    """
    with ray_session(address):
        import ray.data  # takes a second

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        rows = [
            {"source": str(source.absolute()), "target": str(target.absolute())}
            for source, target in work
        ]
        processes = min(len(rows), workers or max(1, int(ray.cluster_resources().get("CPU", 1))))
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            Worker, fn_constructor_args=(make,), num_cpus=1,
            compute=ray.data.ActorPoolStrategy(size=processes),
        )  # fmt: skip
        return [row["error"] for row in done.take_all() if row["error"]]
