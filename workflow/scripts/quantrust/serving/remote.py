"""Images that are fetched from hosts that the user allowed by name, and from no other place.

A name may lead anywhere, and to another address when it is asked for again. Therefore a name is resolved once, all its
addresses must be public, and the connection goes to one of the addresses that were checked.
"""

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from quantrust.errors import QuantrustError
from quantrust.serving.refusal import Refusal, invalid

PORTS = {"http": 80, "https": 443}
LONGEST_URL = 4000
"""Characters."""
CHUNK = 1 << 16
_HOST = re.compile(r"(?P<name>[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)(:(?P<port>[0-9]{1,5}))?")
# Ways to write an IPv4 address within an IPv6 one, which Python takes for public whatever that address is.
_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))


def host_to_allow(given: str) -> str:
    """Return a host as `fetch` compares it: in lower case, as ``name`` or ``name:port``.

    Raises
    ------
    QuantrustError
        If it is no name of a host.
    """
    found = _HOST.fullmatch(given.lower())
    if found is None or (found["port"] and int(found["port"]) > 65535):
        raise QuantrustError(
            f"{given!r:.100} is no name of a host; expected one such as images.example.org, with :PORT behind it where "
            "it is neither 80 for http nor 443 for https"
        )
    return given.lower()


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the public internet.

    Examples
    --------
    >>> is_public("93.184.215.14"), is_public("127.0.0.1"), is_public("169.254.169.254"), is_public("::ffff:10.0.0.1")
    (True, False, False, False)
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif any(found in network for network in _TRANSLATED):
            return False
    return found.is_global and not found.is_multicast


def fetch(url: str, hosts: frozenset[str], max_bytes: int, seconds: float) -> bytes:
    """Return what lies at an address.

    Parameters
    ----------
    url : str
        Not trusted.
    hosts : frozenset of str
        As `host_to_allow` returns them.
    max_bytes : int
    seconds : float
        For all of it.

    Raises
    ------
    Refusal
        If the address is none of http or https on one of the hosts, leads to an address that is not public, or
        redirects; or if the file is too large, takes too long or cannot be fetched.
    """
    scheme, name, port, target = _parts(url, hosts)
    with _faults():
        address = _resolve(name, port)
        connection = _Connection(name, port, address, seconds, tls=scheme == "https")
        # The socket's own time limit is one for each piece that arrives.
        timer = threading.Timer(seconds, connection.cut)
        timer.daemon = True
        timer.start()
        try:
            return _get(connection, target, max_bytes)
        finally:
            timer.cancel()
            connection.close()


def _parts(url: str, hosts: frozenset[str]) -> tuple[str, str, int, str]:
    """Return scheme, host, port, and path with query of an address that may be fetched."""
    if not hosts:
        raise invalid(
            "image_url is no data URL: this server fetches no images; send the image's bytes as "
            "data:image/png;base64,...",
            "messages",
            "remote_image_refused",
        )
    try:
        parts = urllib.parse.urlsplit(url)
        name, port = parts.hostname or "", parts.port
    except ValueError:
        raise _refused("is no address") from None
    if len(url) > LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise _refused(f"is longer than {LONGEST_URL:,} characters, or has others than a URL has")
    if parts.scheme not in PORTS or "@" in parts.netloc:
        raise _refused("is not one of http or https, or holds a user name")
    usual = PORTS[parts.scheme]
    port = usual if port is None else port
    allowed = {f"{name}:{port}", name} if port == usual else {f"{name}:{port}"}
    if not allowed & hosts:
        raise _refused("is on a host that this server was not told to fetch from")
    return parts.scheme, name, port, urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))


def _resolve(name: str, port: int) -> str:
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)]
    if not found or not all(map(is_public, found)):
        raise _refused("leads to an address that is not public")
    return found[0]


class _Connection(http.client.HTTPConnection):
    """Connects to an address that was checked, under the name that it belongs to; knows of no proxy."""

    def __init__(self, name: str, port: int, address: str, seconds: float, *, tls: bool) -> None:
        super().__init__(name, port, timeout=seconds)
        self.default_port = PORTS["https" if tls else "http"]
        self.address, self.tls, self.late = address, tls, False

    def connect(self) -> None:
        # Not `create_connection`, which would resolve once more.
        self.sock = socket.socket(socket.AF_INET6 if ":" in self.address else socket.AF_INET)
        self.sock.settimeout(self.timeout)
        self.sock.connect((self.address, self.port))
        if self.tls:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)

    def cut(self) -> None:
        """End whatever waits for this connection, because its time is up."""
        self.late = True
        if self.sock is not None:
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


def _get(connection: _Connection, target: str, max_bytes: int) -> bytes:
    connection.request("GET", target, headers={"Accept": "image/*", "Accept-Encoding": "identity"})
    response = connection.getresponse()
    if response.status != 200:
        redirect = ", a redirect, which is not followed" if 300 <= response.status < 400 else ""
        raise _refused(f"is answered with status {response.status}{redirect}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _refused("is sent in an encoding that was not asked for")
    content = bytearray()
    while chunk := response.read(CHUNK):
        content += chunk
        if len(content) > max_bytes:
            raise _refused(f"has more than {max_bytes:,} bytes")
    # Without a length, what is cut looks like the end.
    if connection.late or response.length:
        raise _refused("took too long, or ended before it was whole")
    return bytes(content)


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except Refusal:
        raise
    except (OSError, http.client.HTTPException, ValueError):
        # The reason could tell a client about the network that the server is in.
        raise _refused("could not be fetched") from None


def _refused(fault: str) -> Refusal:
    return invalid(f"image_url {fault}; send the image as a data URL", "messages", "remote_image_refused")
