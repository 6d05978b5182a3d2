"""``python -m infinitetalk.pipeline``: the command line."""

import sys

from .command_line import main

sys.exit(main())
