"""HTTP/1.1 on a socket: the listener, connections, messages and the ASGI adapter."""
