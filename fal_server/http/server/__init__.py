"""HTTP/1.1 on sockets: the listener, connections, messages and the ASGI adapter."""
