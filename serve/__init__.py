"""HTTP service for the models that runs have written to disk.

`serve.app` defines the Ray Serve application. `serve.web` builds the ASGI application of one
replica, and `serve.routes` holds the HTTP routes. `serve.models` wraps each model as functions of
arrays that can be tested without Ray. The package reads models with `genray.runs.modelstore`. It
never trains, and it never imports `genray.distributed`.
"""
