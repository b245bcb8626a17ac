"""`genray serve MODELS_DIR`: runs the HTTP service on this machine."""

import signal
import threading
from dataclasses import field, make_dataclass, replace
from typing import Any

from genray.options import folder_argument, parse
from genray.runs.stop import leave_stdout, stop_signals


def serve(argv: list[str], prog: str) -> int:
    """Run `genray serve`; returns the exit status."""
    from serve.launch import ServeLaunch, running
    from serve.middleware import keys_in_environment
    from serve.settings import Settings

    folder, argv = folder_argument(argv, prog, "MODELS_DIR", "runs")
    both: Any = make_dataclass(
        "Serve",
        [
            ("launch", ServeLaunch, field(default_factory=ServeLaunch)),
            ("settings", Settings, field(default_factory=lambda: Settings(models_dir=str(folder)))),
        ],
        frozen=True,
        kw_only=True,
    )
    both.__doc__ = (
        "Serve the models of a directory: a page, OpenAI's image routes, the Open Inference "
        "Protocol."
    )
    options = parse(both, argv, prog)
    settings = replace(options.settings, keys=keys_in_environment())
    # A signal ends the wait below, and the service then answers the requests that it has begun.
    # While the service starts, there is nothing to wait for.
    stop, answering = threading.Event(), False

    def end(number: int, frame: object) -> None:
        if not answering and not stop.is_set():
            stop.set()
            raise KeyboardInterrupt
        stop.set()

    for number in stop_signals():
        signal.signal(number, end)
    print("starting …", flush=True)
    with running(settings, options.launch) as service:
        print(f"page       {service.url}/")
        print(f"OpenAI     {service.url}/v1")
        print(f"inference  {service.url}/v2")
        if service.grpc:
            print(f"gRPC       {service.grpc}")
        print(f"schema     {service.url}/openapi.json")
        print(f"metrics    {service.metrics_url}")
        if options.launch.dashboard_port:
            print(
                f"dashboard  http://127.0.0.1:{options.launch.dashboard_port}/ (its key: ray "
                "get-auth-token)"
            )
        keys = (
            "needed: Authorization: Bearer KEY" if settings.keys else "none: open to this machine"
        )
        print(f"key        {keys}")
        print("Ctrl-C stops it", flush=True)
        answering = True
        stop.wait()
        try:
            print("stopping …", flush=True)
        except OSError:  # the terminal, or the reader of the output, has gone
            leave_stdout()
    return 0
