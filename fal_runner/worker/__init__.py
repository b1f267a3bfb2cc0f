"""What runs in the app's own environment: the standard library and cloudpickle alone, Python 3.8 or newer."""
