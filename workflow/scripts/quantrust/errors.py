"""The one exception that bad input raises."""


class QuantrustError(Exception):
    """Bad input: the message says what is wrong, where, what was expected and what to do.

    Commands print the message without a traceback and exit with code 2.
    """
