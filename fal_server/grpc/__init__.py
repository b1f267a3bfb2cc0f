"""The gRPC face: convert, call a service, convert back."""
