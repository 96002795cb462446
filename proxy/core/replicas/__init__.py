"""Find the engines behind one backend, and the devices of each.

``coherence`` and ``beside`` compare the times of chunks, ``engine_devices`` the energy of devices,
``engines`` keeps what was found.
"""
