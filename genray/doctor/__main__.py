"""Runs the checks with `python -m genray.doctor`, without the command line's libraries, one of
which may be missing.
"""

import sys

from genray.console import escape_unprintable
from genray.doctor import main

escape_unprintable()
sys.exit(main())
