"""Records of requests, output events and work, which the other packages of the core exchange.

``outputs`` has the columns of output events, ``tracks`` the state of each request and of each engine,
``work`` the cells of work that a policy makes of them.
"""
