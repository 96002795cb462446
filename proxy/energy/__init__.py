"""Sensors: where joules come from. Each reads one library and yields :class:`Reading`."""
