"""Tests of the package at the mirrored path."""
