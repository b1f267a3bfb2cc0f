"""Local_python_modules cannot be imported inside of setup() or an endpoint."""

from .b import val
__all__=["val"]
