"""Code that runs in the app's own environment. It needs only cloudpickle and Python 3.8 or newer."""
