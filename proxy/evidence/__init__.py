"""Evidence of what an engine and a device did, beside what passed through the proxy."""
