"""Where coverage looks away: what it watches line by line takes up to twice as long."""

import functools
import os
import sys

# By these, processes that a test starts are watched, too: taken away when the tests
# begin, and given back to those whose processes run what no other test does.
WATCHERS = {
    name: os.environ.pop(name)
    for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")
    if name in os.environ
}


def unwatched(function):
    """Return a function that runs unwatched, for what is not ours."""

    @functools.wraps(function)
    def call(*arguments, **options):
        watcher = sys.gettrace()
        sys.settrace(None)
        try:
            return function(*arguments, **options)
        finally:
            sys.settrace(watcher)

    return call
