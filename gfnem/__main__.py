"""`python -m gfnem`: the command line."""

import sys

from gfnem.cli import main

sys.exit(main())
