"""Exporters: each shows finished records to one outside system."""
