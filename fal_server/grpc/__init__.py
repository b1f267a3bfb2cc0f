"""The gRPC interface: convert, call a service, convert back."""
