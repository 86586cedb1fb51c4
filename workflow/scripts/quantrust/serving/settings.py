"""What a server is told when it starts: where it listens, what it answers, and its limits."""

import ipaddress
from dataclasses import dataclass

ABSTENTION = "I am not sure enough to answer this question."
MEBIBYTE = 1 << 20
CHARACTERS_PER_TOKEN = 16
"""A question with more characters for each token that it may have is refused before its tokens are counted."""
STOPPING_SECONDS = 10.0
"""How long a server that is told to stop takes at most beyond the time limit of the requests that it has accepted."""


@dataclass(frozen=True)
class Limits:
    """What one request and all together may take.

    Attributes
    ----------
    body_bytes : int
        Of a request; also of an image that is fetched.
    pixels : int
        Width times height of an image.
    question_tokens : int
        By the bundle's tokenizer.
    requests : int
        Questions in hand at once, whether they arrive, wait or are answered. Further ones are refused.
    seconds : float
        From the first byte of a question to its answer.
    """

    body_bytes: int = 10 * MEBIBYTE
    pixels: int = 16_000_000
    question_tokens: int = 256
    requests: int = 64
    seconds: float = 60.0

    @property
    def question_characters(self) -> int:
        """The longest question whose tokens are counted, in characters."""
        return CHARACTERS_PER_TOKEN * self.question_tokens


@dataclass(frozen=True)
class ServingSettings:
    """How a bundle is served.

    Attributes
    ----------
    batch_size : int
        Requests that are answered together at most.
    abstention : str
        What the reply says where the model abstains.
    image_hosts : frozenset of str
        Hosts from which images are fetched, in lower case, as ``name`` or ``name:port``.
    api_key : str or None
        What clients must send; None lets everybody in.
    limits : Limits
    """

    batch_size: int = 8
    abstention: str = ABSTENTION
    image_hosts: frozenset[str] = frozenset()
    api_key: str | None = None
    limits: Limits = Limits()


def is_loopback(address: str) -> bool:
    """Return whether an IP address is reached from this machine alone.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
