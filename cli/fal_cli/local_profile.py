"""The profile with host and key of this machine's controller. `fal up` writes it."""

from __future__ import annotations

import os
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fal_cli.controller_process import ControllerProcess
from fal_cli.exit_codes import CommandError
from fal_cli.interrupts import interrupts
from fal_cli.presentation.output import print_note

if TYPE_CHECKING:
    from fal.config import ConfigEditor

_NAME = "local"


class LocalProfile(NamedTuple):
    """A profile.

    Attributes:
        name: its name.
        current: whether commands use it by default.
    """

    name: str
    current: bool


@interrupts.deferred()
def write_profile(controller: ControllerProcess) -> LocalProfile:
    """Write the controller's host and key to a profile. It becomes current if no other is.

    Each state directory has its own profile: `local` is the first one's, `local-2` the second's.
    """
    from fal.config import edit, load, take_over

    if take_over(_NAME):
        files = load()
        print_note(
            f"The profile {_NAME} moved from {files.path} to {files.own_path}: "
            "the published fal package cannot be imported with it."
        )
    with edit() as config:
        name = _choose(config, controller)
        if name not in config.profiles:
            config.create_profile(name)
        config.set(name, "host", controller.url if controller.tls else controller.host)
        config.set(name, "state_dir", str(controller.state_dir.absolute()))
        if controller.ca_file is None:
            config.unset(name, "ca_file")
        else:
            config.set(name, "ca_file", str(controller.ca_file))
        try:
            config.set(name, "key", controller.key())
        except CommandError as error:
            print_note(f"The profile keeps the key that it has: {error}")
        if config.current_profile not in config.profiles:
            config.set_current(name)
        current = os.environ.get("FAL_PROFILE") or config.current_profile
    return LocalProfile(name, current == name)


def _choose(config: ConfigEditor, controller: ControllerProcess) -> str:
    """Return the state directory's profile: its existing one, or a free one."""
    state_dir = str(controller.state_dir.absolute())
    names = chain([_NAME], (f"{_NAME}-{number}" for number in count(2)))
    own = [name for name in config.profiles if config.setting(name, "state_dir") == state_dir]
    name = own[0] if own else next(name for name in names if _is_free(config, name, controller))
    if name != _NAME and not own:
        taken = config.setting(_NAME, "state_dir") or config.setting(_NAME, "host")
        print_note(f"The profile {_NAME} belongs to {taken}, so this controller gets the profile {name}.")
    return name


def _is_free(config: ConfigEditor, name: str, controller: ControllerProcess) -> bool:
    """Return whether a profile may be written. It must be new, lack its state directory, or be this controller's."""
    if name not in config.profiles:
        return True
    owner = config.setting(name, "state_dir")
    if owner is not None:
        return not Path(owner).exists()
    # A user created it, or an earlier version wrote it without its directory.
    host, key = config.setting(name, "host"), config.setting(name, "key")
    return host in {None, controller.host, controller.url} or key == _key_of(controller)


def _key_of(controller: ControllerProcess) -> str:
    try:
        return controller.key()
    except CommandError:
        return ""
