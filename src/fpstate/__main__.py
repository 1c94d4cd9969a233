"""``python -m fpstate``."""

import sys

from fpstate.cli import main

sys.exit(main())
