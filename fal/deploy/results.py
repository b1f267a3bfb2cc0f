"""Reading what a run returned, without running what its sender put in it."""

from __future__ import annotations

import io
import pickle

from fal.deploy.errors import UserFunctionError
from fal_grpc.adapter.run import ReturnValue

_PICKLES = ("pickle", "cloudpickle")


class _PlainUnpickler(pickle.Unpickler):
    """Reads texts, numbers, lists, dicts and the like: what needs no class, and so cannot run any code."""

    def find_class(self, module_name: str, global_name: str, /) -> object:
        raise pickle.UnpicklingError(f"the pickle refers to {module_name}.{global_name}")


def read_result(value: ReturnValue, *, allow_pickle: bool = False) -> object:
    """The object that was returned.

    Args:
        value: what came back.
        allow_pickle: read pickles of other objects than plain data too: its sender may then run code here.

    Raises:
        UserFunctionError: the function raised instead.
        FalError: it is a pickle of other objects than plain data, and those are not allowed.
    """
    if value.was_it_raised:
        name = value.exception_type_name or "an exception"
        said = f": {value.exception_message}" if value.exception_message else ""
        raise UserFunctionError(
            f"the function raised {name}{said}",
            exception_type_name=value.exception_type_name,
            traceback=value.traceback,
        )
    if value.method in _PICKLES and not allow_pickle:
        try:
            plain: object = _PlainUnpickler(io.BytesIO(value.definition)).load()
        except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError):
            return value.load()  # raises, and says what one can do
        return plain
    return value.load(allow_pickle=allow_pickle)
