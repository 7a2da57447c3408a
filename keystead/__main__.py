"""``python -m keystead``."""

import sys

from keystead.cli import main

sys.exit(main())
