"""Evidence: what engines say of themselves, beside what the proxy sees."""
