"""`python -m tuning.study`: runs the published study and writes its results."""

import sys

from tuning.study.study import main

if __name__ == "__main__":
    sys.exit(main())
