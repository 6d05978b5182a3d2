"""``python -m infinitetalk``: the command line."""

import sys

from .pipeline.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
