"""Servers, archives, locks and folders that are not what they should be: one message each, and nothing half-written."""

import io
import json
import random
import socket
import struct
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantrust.downloads import web
from quantrust.downloads.archive import unpack
from quantrust.downloads.fetch import fetch
from quantrust.downloads.web import come_path, file_name, mark_path
from quantrust.errors import QuantrustError

OK = "HTTP/1.1 200 OK\r\nConnection: close\r\n"
DIGEST = "0" * 64


class RawServer:
    """Answers every request with the next of some bytes, the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.requests: list[bytes] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                self.requests.append(connection.recv(65536))
                connection.sendall(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    monkeypatch.setattr(web, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(web, "TIMEOUT_SECONDS", 5.0)
    server = RawServer()
    yield server
    server.socket.close()


def get(tmp_path: Path, url: str, **settings: object) -> Path:
    fetch("x", {"url": url, "folder": str(tmp_path / "got"), **settings}, tmp_path / "x.lock", tmp_path / "x.json")
    return tmp_path / "got"


def left(tmp_path: Path) -> list[str]:
    """Everything that a download left behind, beside the server's bytes that it may go on from."""
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    return sorted(path.name for path in files if not path.name.endswith((".download", ".download.version")))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (OK + "Content-Length: abc\r\n\r\nx", r"the server says Content-Length 'abc'; expected a number of bytes"),
        (OK + "Content-Length: -1\r\n\r\nx", r"the server says Content-Length '-1'; expected a number of bytes"),
        (OK + "Content-Length: 1e3\r\n\r\nx", r"the server says Content-Length '1e3'"),
        (OK + f"Content-Length: {'9' * 30}\r\n\r\nx", r"the server says Content-Length '9{30}'"),
        (OK + f"Content-Length: {9 * 10**17}\r\n\r\nx", r"bytes are needed and [\d,]+ are free"),
        (
            OK + "Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
            r"sends the file as gzip, which was not asked for",
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", r"the server answers 204 No Content; expected a file"),
        ("HTTP/1.1 206 Partial\r\nContent-Range: bytes 5-9/10\r\n\r\nx", r"sends 'bytes 5-9/10' of the file where"),
        ("HTTP/1.1 206 Partial\r\n\r\nx", r"the server sends None of the file where the bytes from 0 on"),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", r"the server answers 403 Forbidden; correct the address"),
        ("HTTP/1.1 999 \r\n\r\n", r"the connection was cut 5 times \(the server answers 999"),
        ("nonsense\r\n\r\n", r"cannot be reached \("),
        ("", r"cannot be reached \("),
        ("HTTP/1.1 abc OK\r\n\r\n", r"cannot be reached \("),
        (OK + "x" * 70_000 + "\r\n\r\n", r"cannot be reached \("),
        (OK + "a: b\r\n" * 200 + "\r\n", r"cannot be reached \("),
        (OK + "Transfer-Encoding: chunked\r\n\r\nzz\r\nx", r"the connection was cut 5 times"),
        (OK + "Content-Length: 10\r\n\r\nx", r"the connection was cut 5 times \(1 of 10 bytes had come\)"),
        (
            "HTTP/1.1 302 F\r\nLocation: ftp://127.0.0.1/f\r\n\r\n",
            r"sends on to ftp://127\.0\.0\.1/f, which is not foll",
        ),
        ("HTTP/1.1 302 F\r\nLocation: file:///etc/passwd\r\n\r\n", r"sends on to file:///etc/passwd|302"),
        ("HTTP/1.1 302 F\r\nLocation: /f.bin\r\n\r\n", r"the server answers 302"),
        ("HTTP/1.1 302 F\r\n\r\n", r"the server answers 302"),
        ("HTTP/1.1 302 F\r\nLocation: http://[::1\r\n\r\n", r"cannot be reached \("),
    ],
)
def test_a_server_that_answers_nonsense_is_named_in_one_line(
    server: RawServer, tmp_path: Path, answer: str, message: str
) -> None:
    server.answers = [answer.encode()]
    with pytest.raises(QuantrustError, match=message) as caught:
        get(tmp_path, f"{server.address}/f.bin")
    assert str(caught.value).startswith((server.address, str(tmp_path)))
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == []


def test_a_redirect_from_https_to_http_is_not_followed() -> None:
    request = web.urllib.request.Request("https://host/f.bin")
    with pytest.raises(QuantrustError, match=r"sends on to http://host/f\.bin, .*; expected https"):
        web._Redirects().redirect_request(request, None, 302, "Found", {}, "http://host/f.bin")


def test_a_redirect_to_another_place_is_followed(server: RawServer, tmp_path: Path) -> None:
    server.answers = [
        f"HTTP/1.1 302 F\r\nLocation: {server.address}/other\r\n\r\n".encode(),
        (OK + "Content-Length: 3\r\n\r\nabc").encode(),
    ]
    assert (get(tmp_path, f"{server.address}/f.bin") / "f.bin").read_bytes() == b"abc"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/f",
        "file:///etc/passwd",
        "data:,x",
        "host/f",
        "http:///f",
        "http://[::1/f",
        "http://host:port/f",
        "http://host:99999999/f",
        "http://host/a b",
        "http://host/\u00e4.zip",
        "http://host/a\nb",
        "http://host/",
        "http://host",
        "http://host/a/",
        "",
    ],
)
def test_an_address_that_is_none_is_refused_before_anything_is_asked(tmp_path: Path, url: str) -> None:
    with pytest.raises(QuantrustError, match=r"expected|percent-encoded") as caught:
        get(tmp_path, url)
    assert str(caught.value).startswith(url)
    assert left(tmp_path) == []


def test_an_address_is_taken_with_its_name_decoded() -> None:
    assert file_name("HTTPS://host:8080/a/b%20c.zip?x=1#y") == "b c.zip"


@pytest.mark.parametrize("url", ["http://host/..%2f..%2fx", "http://host/%2e%2e", "http://host/a%00b"])
def test_an_address_cannot_name_a_file_outside_the_folder(tmp_path: Path, url: str) -> None:
    if url.endswith("x"):
        assert file_name(url) == "x"
        return
    with pytest.raises(QuantrustError, match="names the file"):
        get(tmp_path, url)


GOOD = {"bytes": 3, "sha256": DIGEST}


@pytest.mark.parametrize(
    ("lock", "message"),
    [
        ("null", r"x\.lock holds a NoneType; expected an object"),
        ("[]", r"x\.lock holds a list; expected an object"),
        ("", r"x\.lock: is not valid JSON"),
        ("{}", r"x\.lock has no map under source; restore"),
        ({"source": None, "files": {}}, r"has no map under source"),
        ({"files": None}, r"has no map under files"),
        ({"files": []}, r"has no map under files"),
        ({"files": {}}, r"records no file; restore"),
        ({"files": {"f.bin": None}}, r"records no bytes and SHA-256 of 'f\.bin'"),
        ({"files": {"f.bin": {"bytes": 3}}}, r"records no bytes and SHA-256"),
        ({"files": {"f.bin": {**GOOD, "bytes": None}}}, r"records no bytes and SHA-256"),
        ({"files": {"f.bin": {**GOOD, "bytes": True}}}, r"records no bytes and SHA-256"),
        ({"files": {"f.bin": {**GOOD, "bytes": -3}}}, r"records no bytes and SHA-256"),
        ({"files": {"f.bin": {**GOOD, "bytes": "3"}}}, r"records no bytes and SHA-256"),
        ({"files": {"f.bin": {**GOOD, "sha256": DIGEST[1:]}}}, r"records no bytes and SHA-256"),
        ({"files": {"f.bin": {**GOOD, "sha256": None}}}, r"records no bytes and SHA-256"),
        ({"files": {"f.bin": {**GOOD, "sha256": 7}}}, r"records no bytes and SHA-256"),
        ({"files": {"other.bin": GOOD}}, r"x\.lock: does not record f\.bin"),
        ({"files": {"f.bin": GOOD}}, r"f\.bin: has 3 bytes and the SHA-256 .* but .*x\.lock records 3 and 0000"),
        ({"files": {"f.bin": {**GOOD, "bytes": 4}}}, r"has 3 bytes now, but the lock records 4"),
        ({"source": {"url": "http://other/f.bin"}, "files": {"f.bin": GOOD}}, r"x\.lock records .*other.*asks for"),
    ],
)
def test_an_incomplete_lock_never_turns_checking_off(
    server: RawServer, tmp_path: Path, lock: str | dict, message: str
) -> None:
    server.answers = [(OK + "Content-Length: 3\r\n\r\nabc").encode()]
    url = f"{server.address}/f.bin"
    text = lock if isinstance(lock, str) else json.dumps({"source": {"url": url}, **lock})
    (tmp_path / "x.lock").write_text(text)
    with pytest.raises(QuantrustError, match=message):
        get(tmp_path, url)
    assert (tmp_path / "x.lock").read_text() == text
    assert not (tmp_path / "x.json").exists()


HUB = {"repository": "owner/data", "revision": "main", "kind": "dataset"}


@pytest.mark.parametrize("commit", [None, "main", 7, "a" * 39])
def test_a_lock_of_a_repository_needs_a_commit(tmp_path: Path, commit: object) -> None:
    lock = {"source": HUB, "files": {"f.bin": GOOD}, "commit": commit}
    (tmp_path / "x.lock").write_text(json.dumps(lock))
    with pytest.raises(QuantrustError, match=r"x\.lock has no commit of 40 hexadecimal digits"):
        fetch("x", {"hub": HUB, "folder": str(tmp_path / "got")}, tmp_path / "x.lock", tmp_path / "x.json")


@pytest.mark.parametrize("repository", ["a b", "a/b/c", "../x", "-x-", "a" * 200])
def test_a_repository_whose_name_is_none_is_named(server: RawServer, tmp_path: Path, repository: str) -> None:
    server.answers = [b"HTTP/1.1 404 Not Found\r\nX-Error-Code: RepoNotFound\r\nContent-Length: 0\r\n\r\n"]
    settings = {"hub": HUB | {"repository": repository}, "folder": str(tmp_path / "got")}
    with pytest.raises(QuantrustError, match=r"^downloads\.x: dataset ") as caught:
        fetch("x", settings, tmp_path / "x.lock", tmp_path / "x.json", endpoint=server.address)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "answer", ["", "{", "[]", "null", '{"id": 1}', '{"sha": 1, "siblings": 3}', '{"siblings": [{}]}']
)
def test_a_hub_that_answers_nonsense_is_named(server: RawServer, tmp_path: Path, answer: str) -> None:
    head = f"{OK}Content-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
    server.answers = [(head + answer).encode()]
    settings = {"hub": HUB, "folder": str(tmp_path / "got")}
    with pytest.raises(QuantrustError, match=r"^downloads\.x: dataset owner/data") as caught:
        fetch("x", settings, tmp_path / "x.lock", tmp_path / "x.json", endpoint=server.address)
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == []


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "got").write_text("x")
    with pytest.raises(QuantrustError, match=r"downloads\.x: the folder .*got cannot be made \(File exists\)"):
        get(tmp_path, "http://127.0.0.1:1/f.bin")
    with pytest.raises(QuantrustError, match=r"downloads\.x: the folder .*got/deeper cannot be made \(Not a directory"):
        get(tmp_path, "http://127.0.0.1:1/f.bin", folder=str(tmp_path / "got" / "deeper"))


def test_a_file_that_is_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "got" / "f.bin").mkdir(parents=True)
    with pytest.raises(QuantrustError, match=r"f\.bin is not a file; remove what stands there"):
        get(tmp_path, "http://127.0.0.1:1/f.bin")


def test_a_link_in_the_place_of_what_has_come_is_not_written_through(server: RawServer, tmp_path: Path) -> None:
    server.answers = [(OK + 'ETag: "1"\r\nContent-Length: 3\r\n\r\nabc').encode()]
    (tmp_path / "got").mkdir()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    target = tmp_path / "got" / "f.bin"
    come_path(target).symlink_to(victim)
    with pytest.raises(QuantrustError, match=r"\.f\.bin\.download is a link; it is where f\.bin is downloaded to"):
        get(tmp_path, f"{server.address}/f.bin")
    come_path(target).unlink()
    mark_path(target).symlink_to(victim)
    get(tmp_path, f"{server.address}/f.bin")
    assert victim.read_text() == "mine"
    assert target.read_text() == "abc"


def test_two_downloads_of_one_file_do_not_mix(server: RawServer, tmp_path: Path) -> None:
    (tmp_path / "got").mkdir()
    target = tmp_path / "got" / "f.bin"
    with web._come(target), pytest.raises(QuantrustError, match=r"f\.bin: another process downloads it; wait"):
        get(tmp_path, f"{server.address}/f.bin")
    assert server.requests == []


def archive_of(files: dict[str, str], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, content in files.items():
            # With a date of its own, so that the bytes, which name tests, are the same in every process.
            opened.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def patched(content: bytes, local: int, central: int, value: int) -> bytes:
    """Write a 16-bit field of the one member, at an offset of its local and of its central header."""
    changed = bytearray(content)
    struct.pack_into("<H", changed, local, value)
    struct.pack_into("<H", changed, content.index(b"PK\x01\x02") + central, value)
    return bytes(changed)


ONE = archive_of({"a.txt": "one"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (patched(ONE, 6, 8, 0x1), r"v\.zip: a\.txt is encrypted; unpack it yourself"),
        (patched(ONE, 8, 10, 99), r"v\.zip: uses .*compression.*; unpack it yourself"),
        (patched(ONE, 8, 10, zipfile.ZIP_LZMA), r"v\.zip: is not a whole zip archive"),
        (patched(ONE, 8, 10, zipfile.ZIP_BZIP2), r"v\.zip: is not a whole zip archive"),
        (archive_of({"n" * 300: "one"}), r"v\.zip: names the file .* longer than 255 bytes a part"),
        (archive_of({"x/": "", ".hidden": "x"}), r"v\.zip: holds no file"),
        (archive_of({"v.zip": "x"}), r"v\.zip: holds a file with the name v\.zip, which is taken"),
        (archive_of({"taken": "x"}), r"v\.zip: holds a file with the name taken, which is taken"),
        (archive_of({"a\\..\\b": "x"}), r"v\.zip: names the file"),
        (ONE[:-30], r"v\.zip: is not a whole zip archive"),
        (b"", r"v\.zip: is not a whole zip archive"),
        (b"PK\x05\x06" + b"\xff" * 18, r"v\.zip: "),
    ],
)
def test_an_archive_that_cannot_be_unpacked_is_named_and_leaves_nothing(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "v.zip").write_bytes(content)
    with pytest.raises(QuantrustError, match=message):
        unpack(tmp_path / "v.zip", tmp_path)
    assert left(tmp_path) == ["v.zip"]


def test_no_flipped_byte_of_an_archive_brings_other_content(tmp_path: Path) -> None:
    """Whatever is flipped, the files come whole or one message says that the archive is damaged."""
    files = {f"f{number}.txt": f"content {number}" * 9 for number in range(3)}
    generator = random.Random(0)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        content = archive_of(files, method)
        for trial in range(60):
            damaged = bytearray(content)
            damaged[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
            folder = tmp_path / f"{method}-{trial}"
            folder.mkdir()
            (folder / "v.zip").write_bytes(damaged)
            try:
                unpack(folder / "v.zip", folder)
            except QuantrustError as error:
                assert "\n" not in str(error)
            found = {path.read_text() for path in folder.glob("f*.txt")}
            assert found <= set(files.values())
