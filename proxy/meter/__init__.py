"""The meter process: events and samples in, records out; serving never waits for it."""
