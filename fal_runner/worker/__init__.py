"""Code that runs in the app's own environment: only the standard library and cloudpickle, Python 3.8 or newer."""
