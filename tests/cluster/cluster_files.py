"""What the tests of cluster/ share: its files, the versions they must have, and the commands in them."""

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import tyro
import yaml

from sweeps.command_line import completed

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
FILES = sorted(path for path in CLUSTER.rglob("*") if path.is_file())
RAY_UP = ("aws", "gcp", "on_prem")

_SEPARATORS = {";", "&&", "||", "|", "&", "(", ")", ";;", "{", "}", "do", "done", "then", ">", ">>", "<"}


def load(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text())


def versions() -> dict[str, str]:
    """constraints.txt: package -> version."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def shell_lines(text: str) -> list[str]:
    """The lines of a shell script without comments; a line that ends in \\ and the next are one."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def commands(text: str) -> list[list[str]]:
    """Every command in shell text, as words; one in quotes (`ray exec FILE '...'`, $(...)) counts, too."""
    found: list[list[str]] = []
    for line in shell_lines(text):
        lexer = shlex.shlex(line.replace("$(", " ( "), posix=True, punctuation_chars=";&|()<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word in _SEPARATORS:
                if words:
                    found.append(words)
                words = []
            else:
                words.append(word)
                if re.search(r"\s", word):
                    found += commands(word)
    return found


def after(words: list[str], program: str) -> list[str] | None:
    """What follows a program, however it is called (.venv/bin/ray, FOO=1 ray, srun ray); None if it is not called."""
    for index, word in enumerate(words):
        if word == program or word.endswith("/" + program):
            return words[index + 1 :]
    return None


def parse_sweep(words: list[str]) -> Any:
    """A `python sweeps/NAME.py ...` by the program's own parser; SystemExit if it does not take the options.

    None if the words are no such command.
    """
    for index, word in enumerate(words):
        if matched := re.search(r"(?:^|/)sweeps/(\w+)\.py$", word):
            module = importlib.import_module(f"sweeps.{matched[1]}")
            options = next(
                value
                for value in vars(module).values()
                if isinstance(value, type) and value.__module__ == module.__name__ and hasattr(value, "run")
            )
            return tyro.cli(options, args=completed([w for w in words[index + 1 :] if w != "$@"]))
    return None
