"""Tests that run the files of examples/ as a user does."""
