"""`python -m genray.doctor`: the checks without the command line, which needs more libraries
than they do.
"""

import sys

from genray.console import escape_unprintable
from genray.doctor import main

escape_unprintable()
sys.exit(main())
