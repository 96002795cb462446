"""A simulated engine on a simulated GPU, whose true joules are known."""
