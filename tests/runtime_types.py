"""The type checker that the tests switch on: beartype, to which an int is a float too, as it is to mypy."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
