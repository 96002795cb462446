"""What HTTP asks of any proxy, as cases for whichever stands in its place. ``python -m tests.contract``."""
