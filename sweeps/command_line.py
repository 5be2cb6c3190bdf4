"""The words of a command line: what is completed, refused and kept of them before they become options."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bbqrec.errors import InputError
from sweeps.connection import AUTO

STANDS_ALONE = ("--cluster", "--submit")
"""Options with an address that may be left out."""


def completed(words: list[str]) -> list[str]:
    """`--cluster` or `--submit` without a value means AUTO. An option given twice, of which one would be lost, raises
    InputError."""
    found: list[str] = []
    for index, word in enumerate(words):
        option = _option(word)
        if option.startswith("--") and any(option == _option(other) for other in found):
            raise InputError(f"{option} is given twice", f"give it once, with all its values: {option} A B")
        found.append(word)
        if word in STANDS_ALONE and (index + 1 == len(words) or words[index + 1].startswith("--")):
            found.append(AUTO)
    return found


def _option(word: str) -> str:
    """What stands before the value; --max_concurrent is --max-concurrent."""
    return word.partition("=")[0].replace("_", "-")


def options_of(words: Sequence[str]) -> dict[str, list[str]]:
    """The options of a command line, spelt with hyphens, each with its values."""
    found: dict[str, list[str]] = {}
    option = ""
    for word in words:
        if word.startswith("--"):
            option, (_, sign, value) = _option(word), word.partition("=")
            found[option] = [value] if sign else []
        elif option:
            found[option].append(word)
    return found


def without_passwords(command: str) -> str:
    """A command line as study files keep it: a URI such as --mlflow's may name a user and a password."""
    return re.sub(r"://[^/\s]*@", HIDDEN, command)


HIDDEN = "://***@"
"""What `without_passwords` leaves of a user and a password."""


def file_of(study: type, name: str) -> str:
    """How the file with the study of this `name` is called on a command line."""
    own = study.__module__ != "__main__" or Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parent
    return f"sweeps/{name}.py" if own else sys.argv[0]


def overrides(pairs: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE words as a dict."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not (name and sign and value):
            raise InputError(f"--set {pair!r} is not of the form NAME=VALUE", "write for instance recommender.epochs=3")
        if name in found:
            raise InputError(f"--set {name} is given twice", "give it once")
        found[name] = value
    return found
