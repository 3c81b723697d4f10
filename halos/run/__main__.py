"""`python -m halos.run`."""

from __future__ import annotations

import signal
import sys

from halos.run.cli import main, terminate

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, terminate)
    sys.exit(main())
