"""The one exception that speaks to users.

Everything that a user can get wrong (a path, a flag, a file's content) is raised as an
``InputError`` whose message is one clear sentence: which file or flag, what was found,
what was expected and what to do. The command line prints the message and exits with 2.
"""


class InputError(Exception):
    """Bad input. ``str(error)`` is the sentence for the user."""
