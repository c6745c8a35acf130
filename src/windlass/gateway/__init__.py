"""The gateway: the path of one call, from admission to the bytes that leave. `gateway.py` shows the order."""
