"""Imports Ray Serve without pandas. Ray's workers import this module when they start.

Ray Serve imports pandas, and with it pyarrow, to encode answers that are data frames. The service
has no such answers. Without pandas, each of Ray's five processes starts half a second earlier and
needs 70 MB less. Other code can still import pandas.
"""

import importlib
import sys

if "pandas" in sys.modules or "ray.serve" in sys.modules:
    importlib.import_module("ray.serve")
else:
    sys.modules["pandas"] = None  # type: ignore[assignment]  # an import raises ImportError
    try:
        importlib.import_module("ray.serve")
    finally:
        del sys.modules["pandas"]
