"""HTTP requirements for any proxy, as cases that run against several: ``python -m tests.contract``."""
