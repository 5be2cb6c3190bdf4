"""The exceptions that mean: the input is wrong, and here is what to do about it."""

import difflib
from collections.abc import Collection


class InputError(Exception):
    """Bad input from outside the program. Commands print it as one line and exit with status 2.

    `what` names the thing that is wrong, `remedy` says what to do about it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}: {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy

    def __reduce__(self) -> tuple[type["InputError"], tuple[str, str]]:
        return type(self), (self.what, self.remedy)


class Diverged(InputError):
    """The config asks for steps so large that a loss is no number any more: another attempt ends the same way."""


def require_known(what: str, name: str, known: Collection[str]) -> None:
    """Raises InputError unless `name` is one of `known`."""
    if name not in known:
        raise InputError(f"unknown {what} {name!r}", suggestion(name, known))


def suggestion(name: str, known: Collection[str]) -> str:
    """The remedy for a misspelt name: the nearest one, and all that there are."""
    near = difflib.get_close_matches(name, known, n=1)
    return (f"did you mean {near[0]}? " if near else "") + f"known are {', '.join(known)}"
