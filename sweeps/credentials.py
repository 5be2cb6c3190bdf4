"""Keys of a store stay out of what Ray writes down."""

import contextlib
from collections.abc import Iterator

from ray.tune.execution import class_cache


@contextlib.contextmanager
def kept_to_their_nodes() -> Iterator[None]:
    """In this block Tune starts its actors without the driver's AWS keys.

    It would put them into the actors' runtime environment, which Ray prints to a log on every node that anybody there
    can read, and that its dashboard shows. A node has keys of its own, or a role; a local Ray has the driver's
    environment.
    """
    before = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in before if not name.startswith("AWS_")}
    try:
        yield
    finally:
        class_cache.ENV_VARS_TO_PROPAGATE = before
