"""The heart: events in, joules out. Pure: no I/O, no clock, no threads."""
