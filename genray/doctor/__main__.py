"""`python -m genray.doctor`: the checks without the command line, which needs more libraries than they do."""

import sys

from genray.doctor import main

sys.exit(main())
