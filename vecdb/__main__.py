"""``python -m vecdb``: the command line."""

import sys

from vecdb.cli import main

if __name__ == "__main__":
    sys.exit(main())
