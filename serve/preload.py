"""Imports Ray Serve without pandas and pyarrow. Ray's workers import this module when they start.

Ray Serve imports pandas, and with it pyarrow, to encode answers that are data frames. Ray imports
pyarrow to send its tables between processes. The service has neither. Without the two, each of
Ray's five processes starts half a second earlier and needs 70 to 100 MB less. Other code can still
import both.
"""

import contextlib
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

# Ray calls this function when a process sends its first object.
_REGISTER = "_register_custom_datasets_serializers"
with contextlib.suppress(ImportError):  # another release of Ray
    _arrow = importlib.import_module("ray._private.arrow_serialization")
    if hasattr(_arrow, _REGISTER):
        setattr(_arrow, _REGISTER, lambda context: None)
