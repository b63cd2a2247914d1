"""What the user can mend: the commands print its one line and exit with status 2."""


class UserError(Exception):
    """Wrong input. The text names the file, key or value, and what to do about it."""
