"""Runs the `genray` command as `python -m genray`."""

import sys

from genray.cli import main

sys.exit(main())
