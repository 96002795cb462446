"""``python -m proxy`` is ``jouleproxy``."""

import sys

from proxy.cli import main

sys.exit(main())
