"""Tests of proxy.api.native."""
