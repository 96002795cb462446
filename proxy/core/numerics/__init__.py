"""Numerical methods without knowledge of energy: non-negative least squares and order statistics."""
