"""`quantrust serve`: answering over HTTP with a bundle."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantrust.commands.numbers import parsed, share
from quantrust.errors import QuantrustError
from quantrust.serving.settings import ABSTENTION, MEBIBYTE, STOPPING_SECONDS, Limits, ServingSettings

if TYPE_CHECKING:
    from quantrust.serving.app import Served
    from quantrust.serving.worker import Model

KEY_VARIABLE = "QUANTRUST_API_KEY"
SHORTEST_KEY, LONGEST_KEY = 16, 1000
DEFAULTS = Limits()

DESCRIPTION = """\
Answer questions about images over HTTP, with the protocol of OpenAI's chat
completions. Every reply says how confident the model is; below the threshold of
the risk limit it abstains. A page to try it is at the address itself."""

EPILOG = f"""\
examples:
  for programs on this machine
    quantrust serve data/bundles/qwen2-vl-tiny/hqq-w4g64-full --risk 0.05
  for others, behind a proxy that encrypts, with a key
    quantrust serve data/bundles/qwen2-vl-tiny/hqq-w4g64-full \\
        --host 0.0.0.0 --api-key-file key.txt
  the same for a GPU
    quantrust serve data/bundles/qwen2-vl-tiny/hqq-w4g64-full \\
        --device cuda --batch-size 32

The key may also be in the environment variable {KEY_VARIABLE}. It is
required where others than this machine can reach the server.

The process stops on SIGTERM or Ctrl-C: it answers what it has accepted, refuses
what comes later, and ends within --timeout and {STOPPING_SECONDS:g} seconds. The exit code is 0
after SIGTERM, 130 after Ctrl-C, 1 if a question had to be given up, and 2 if
the bundle, an option or the address cannot be used.

docs/serving.md has the fields, limits, statuses and metrics."""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of `quantrust`."""
    parser = subparsers.add_parser(
        "serve",
        help="answer over HTTP with a bundle",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of a bundle")
    where = parser.add_argument_group("where")
    where.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    where.add_argument("--port", type=_port, default=8000, help="port, 0 for any that is free (default: 8000)")
    where.add_argument("--api-key-file", type=Path, metavar="FILE", help="file with the key that clients must send")
    what = parser.add_argument_group("what")
    what.add_argument("--risk", type=share, help="risk limit of requests that name none (default: the bundle's)")
    what.add_argument("--name", type=_text, help="the model's name for clients (default: the bundle's, MODEL/SCHEME)")
    what.add_argument(
        "--abstention", type=_text, default=ABSTENTION, metavar="TEXT", help="what is said instead of an answer"
    )
    how = parser.add_argument_group("how")
    how.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute (default: cpu)")
    how.add_argument("--kernel", choices=("reference", "packed"), help="how to multiply (default: as was measured)")
    how.add_argument("--threads", type=_positive, default=1, help="threads of the processor (default: 1)")
    how.add_argument("--batch-size", type=_positive, default=8, help="questions answered together (default: 8)")
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--queue",
        type=_positive,
        default=DEFAULTS.requests,
        help=f"questions in hand at once, waiting ones included (default: {DEFAULTS.requests})",
    )
    limits.add_argument(
        "--timeout",
        type=_seconds,
        default=DEFAULTS.seconds,
        metavar="SECONDS",
        help=f"time for a question from its head to its reply (default: {DEFAULTS.seconds:g})",
    )
    limits.add_argument(
        "--max-body",
        type=_positive,
        default=DEFAULTS.body_bytes // MEBIBYTE,
        metavar="MIB",
        help=f"size of a request (default: {DEFAULTS.body_bytes // MEBIBYTE})",
    )
    limits.add_argument(
        "--max-pixels",
        type=_positive,
        default=DEFAULTS.pixels,
        metavar="N",
        help=f"pixels of an image (default: {DEFAULTS.pixels:,})",
    )
    limits.add_argument(
        "--max-question-tokens",
        type=_positive,
        default=DEFAULTS.question_tokens,
        metavar="N",
        help=f"tokens of a question (default: {DEFAULTS.question_tokens})",
    )
    limits.add_argument(
        "--allow-image-host",
        action="append",
        default=[],
        metavar="NAME",
        help="host from which images may be fetched; may be given more than once (default: none)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes and return the exit code.

    Raises
    ------
    QuantrustError
        If the bundle, an option or the address cannot be used. Nothing is then listened at.
    """
    # torch and the libraries of the server take seconds to import, which the other commands need not wait for
    from quantrust.serving.remote import host_to_allow
    from quantrust.serving.server import bind, leave, serve

    settings = ServingSettings(
        batch_size=arguments.batch_size,
        abstention=arguments.abstention,
        image_hosts=frozenset(map(host_to_allow, arguments.allow_image_host)),
        api_key=read_key(arguments.api_key_file),
        limits=Limits(
            body_bytes=arguments.max_body * MEBIBYTE,
            pixels=arguments.max_pixels,
            question_tokens=arguments.max_question_tokens,
            requests=arguments.queue,
            seconds=arguments.timeout,
        ),
    )
    address = bind(arguments.host, arguments.port)
    with address.socket:
        if not address.loopback and settings.api_key is None:
            raise QuantrustError(
                f"--host {arguments.host}: others than this machine can reach the server there, so that it needs a "
                f"key; give --api-key-file, or set {KEY_VARIABLE}"
            )
        code = serve(address, settings, lambda: _load(arguments), lambda url: _announce(url, arguments.bundle))
    leave(code)
    return code


def read_key(path: Path | None) -> str | None:
    """Return the key that clients must send, from a file or the environment; None if there is none.

    Raises
    ------
    QuantrustError
        If the file cannot be read, or the key is one that could be guessed or cannot be sent.
    """
    if path is None:
        key, where = os.environ.get(KEY_VARIABLE), KEY_VARIABLE
        if key is None:
            return None
    else:
        where = str(path)
        try:
            with path.open("rb") as file:
                key = file.read(2 * LONGEST_KEY).decode("ascii", "replace").strip()
        except OSError as error:
            raise QuantrustError(f"{path}: cannot be read ({error.strerror}); expected a file with the key") from None
    if not SHORTEST_KEY <= len(key) <= LONGEST_KEY or not all(33 <= ord(letter) <= 126 for letter in key):
        raise QuantrustError(
            f"{where}: holds no key; expected {SHORTEST_KEY} to {LONGEST_KEY:,} letters, digits and signs of ASCII "
            "without spaces, such as `openssl rand -hex 32` prints"
        )
    return key


def _load(arguments: argparse.Namespace) -> tuple["Model", "Served"]:
    from quantrust.bundle.load import Bundle
    from quantrust.serving.bundled import BundledModel, what_is_served

    bundle = Bundle.load(arguments.bundle, arguments.device, arguments.kernel, threads=arguments.threads)
    return BundledModel(bundle), what_is_served(bundle, arguments.name, arguments.risk)


def _announce(url: str, bundle: Path) -> None:
    print(f"serving {bundle} at {url}", flush=True)
    print(f"  a page to try it:       {url}/", flush=True)
    print(f"  for the openai client:  {url}/v1", flush=True)


def _port(text: str) -> int:
    value = parsed(int, text, "a port from 0 to 65535")
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port; expected 0 to 65535")
    return value


def _text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; expected a text")
    return text


def _positive(text: str) -> int:
    value = parsed(int, text, "a whole number from 1 on")
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def _seconds(text: str) -> float:
    value = parsed(float, text, "a number of seconds")
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is no time from 0.1 to 3600 seconds")
    return value
