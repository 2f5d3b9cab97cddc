"""Starts the demo, as `python client/python/examples/demo` or as `python -m demo`.

The one thing to know: workers import the tasks as `demo.tasks`, so the folder above has to be on the path.
This file must not do more than that.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from demo.program import main

if __name__ == "__main__":
    sys.exit(main())
