"""A laboratory on loopback: a Postfix of our own, an outside world that keeps what it gets, a client, and the milter.

The tests and `deploy/quickstart` share it. Nothing here touches the host's own mail system, and nothing sends a packet
to any address but 127.0.0.1.
"""
