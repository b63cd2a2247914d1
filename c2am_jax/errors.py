"""What the user can fix: the commands print its one line and exit with status 2."""


class UserError(Exception):
    """Wrong input. The text names the file, key or value, and what to do about it."""


EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: saved, the same command resumes


class Stopped(Exception):
    """The machine asked to stop; the state is saved, and the same command resumes."""
