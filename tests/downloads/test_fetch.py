"""Downloads against servers on this machine: resumed, checked against the lock, refused with one line."""

import hashlib
import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import datasets
import pytest

from official_readers import read_vizwiz
from quantrust import disk
from quantrust.downloads import hub as client
from quantrust.downloads import web
from quantrust.downloads.fetch import fetch
from quantrust.errors import QuantrustError
from study_workspace import Workspace

CONTENT = bytes(range(256)) * 4096
COMMIT, LATER = "a" * 40, "b" * 40


class Server:
    """Serves files by their path, with Range and If-Range; cuts connections and changes files when told to."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.cut_after: list[int] = []
        self.requests: list[tuple[str, str, str | None]] = []
        self.status: list[int] = []
        self.etag = True
        self.gone = False
        self.revisions = {"main": COMMIT, COMMIT: COMMIT}
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                owner.answer(self, body=False)

            def do_GET(self):
                owner.answer(self, body=True)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def stop(self):
        self.http.shutdown()
        self.http.server_close()

    def answer(self, request, body):
        path = unquote(urlsplit(request.path).path)
        if self.gone:
            request.close_connection = True
            return None
        self.requests.append((request.command, path, request.headers.get("Range")))
        if self.status:
            return self.send(request, self.status.pop(0), {}, b"")
        if path.startswith(("/api/datasets/owner/data/", "/api/models/owner/model/")):
            return self.answer_hub(request, path)
        if path.startswith("/datasets/owner/data/resolve/"):
            path = path.split("/", 6)[6]
        if path.startswith("/owner/model/resolve/"):
            path = path.split("/", 5)[5]
        if path not in self.files:
            code = "RepoNotFound" if path.startswith("/api/") else "EntryNotFound"
            return self.send(request, 404, {"X-Error-Code": code}, b"")
        content = self.files[path]
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        headers = {"X-Repo-Commit": COMMIT} | ({"ETag": tag} if self.etag else {})
        start, status = 0, 200
        asked = request.headers.get("Range")
        if asked and request.headers.get("If-Range", tag) == tag:
            start = int(asked.removeprefix("bytes=").split("-")[0])
            if start >= len(content):
                return self.send(request, 416, {"Content-Range": f"bytes */{len(content)}"}, b"")
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(request, status, headers, content[start:], body)

    def answer_hub(self, request, path):
        revision = path.split("/")[6]
        if revision not in self.revisions:
            return self.send(request, 404, {"X-Error-Code": "RevisionNotFound"}, b"")
        if "/tree/" in path:
            entries = [{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in self.files.items()]
            return self.send(request, 200, {}, json.dumps(entries).encode())
        siblings = [
            {"rfilename": p, "size": len(c), "lfs": {"sha256": hashlib.sha256(c).hexdigest(), "size": len(c)}}
            for p, c in self.files.items()
        ]
        for sibling in siblings:
            sibling["lfs"]["pointerSize"] = 100
        info = {"id": "owner/data", "sha": self.revisions[revision], "siblings": siblings}
        return self.send(request, 200, {}, json.dumps(info).encode())

    def send(self, request, status, headers, content, body=True):
        request.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            request.send_header(key, value)
        request.end_headers()
        if body and content:
            cut = self.cut_after.pop(0) if self.cut_after else len(content)
            request.wfile.write(content[:cut])
            if cut < len(content):
                request.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(web, "PAUSE_SECONDS", 0.0)
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def get(server, tmp_path):
    """Return a function that fetches `/a/file.bin` of the server, or what other settings name."""
    server.files["/a/file.bin"] = CONTENT

    def get(**settings):
        settings = {"url": f"{server.address}/a/file.bin", "folder": str(tmp_path / "got")} | settings
        settings = {key: value for key, value in settings.items() if value is not None}
        fetch("x", settings, tmp_path / "x.lock", tmp_path / "x.json", endpoint=server.address)
        return tmp_path / "got"

    return get


def lock(tmp_path):
    return json.loads((tmp_path / "x.lock").read_text())


def test_the_first_download_records_size_and_digest(get, server, tmp_path):
    folder = get()
    assert (folder / "file.bin").read_bytes() == CONTENT
    assert [path.name for path in folder.iterdir()] == ["file.bin"]
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert lock(tmp_path) == {
        "source": {"url": f"{server.address}/a/file.bin"},
        "files": {"file.bin": {"bytes": 1 << 20, "sha256": digest}},
    }
    assert json.loads((tmp_path / "x.json").read_text()) == lock(tmp_path)


def test_what_is_there_is_checked_and_not_fetched_again(get, server):
    get()
    server.requests.clear()
    get()
    assert server.requests == []


def test_a_cut_connection_is_resumed_where_it_was_cut(get, server):
    server.cut_after = [300_000, 200_000]
    assert (get() / "file.bin").read_bytes() == CONTENT
    assert [asked for _, _, asked in server.requests] == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_attempt_goes_on_where_the_last_one_gave_up(get, server, tmp_path):
    server.cut_after = [10_000] * web.ATTEMPTS
    with pytest.raises(
        QuantrustError, match=r"file\.bin: the connection was cut 5 times .* after 50,000 bytes; the same"
    ):
        get()
    assert not (tmp_path / "got" / "file.bin").exists()
    assert not (tmp_path / "x.lock").exists() and not (tmp_path / "x.json").exists()
    server.requests.clear()
    assert (get() / "file.bin").read_bytes() == CONTENT
    assert server.requests == [("GET", "/a/file.bin", "bytes=50000-")]


def test_a_job_killed_before_the_last_rename_needs_no_byte_more(get, server, tmp_path):
    folder = get()
    (folder / "file.bin").rename(web.come_path(folder / "file.bin"))
    digest = hashlib.sha256(CONTENT).hexdigest()
    web.mark_path(folder / "file.bin").write_text(f'"{digest}"')
    assert (get() / "file.bin").read_bytes() == CONTENT


def test_a_file_that_changed_between_two_attempts_is_not_pieced_together(get, server):
    server.cut_after = [10_000] * web.ATTEMPTS
    with pytest.raises(QuantrustError, match="the connection was cut"):
        get()
    server.files["/a/file.bin"] = CONTENT[::-1]
    server.cut_after = []
    assert (get() / "file.bin").read_bytes() == CONTENT[::-1]


def test_without_a_mark_of_the_version_a_cut_download_begins_anew(get, server):
    server.etag = False
    server.cut_after = [300_000]
    assert (get() / "file.bin").read_bytes() == CONTENT
    assert [asked for _, _, asked in server.requests] == [None, None]


def test_a_server_that_is_busy_for_a_moment_is_asked_again(get, server):
    server.status = [503, 429]
    assert (get() / "file.bin").read_bytes() == CONTENT


def test_another_content_of_the_same_size_is_refused_by_its_digest(get, server, tmp_path):
    (get() / "file.bin").unlink()
    server.files["/a/file.bin"] = CONTENT[::-1]
    before = lock(tmp_path)
    with pytest.raises(
        QuantrustError, match=r"file\.bin: has 1,048,576 bytes and the SHA-256 .* but .*x\.lock records"
    ):
        get()
    assert lock(tmp_path) == before


def test_another_size_is_refused_before_anything_is_downloaded(get, server, tmp_path):
    (get() / "file.bin").unlink()
    server.files["/a/file.bin"] = CONTENT[:-1]
    with pytest.raises(QuantrustError, match=r"has 1,048,575 bytes now, but the lock records 1,048,576"):
        get()
    assert list((tmp_path / "got").iterdir()) == []


def test_a_file_damaged_on_disk_is_found_by_the_next_check(get):
    folder = get()
    (folder / "file.bin").write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(QuantrustError, match=r"file\.bin: has .* delete .*file\.bin to download it again"):
        get()


def test_a_lock_of_another_source_is_refused(get, server):
    get()
    with pytest.raises(
        QuantrustError, match=r"downloads\.x: .*x\.lock records .*file\.bin.*but the config asks for .*b\.bin"
    ):
        get(url=f"{server.address}/b.bin")


def test_an_address_that_does_not_exist_is_named(get, server, tmp_path):
    with pytest.raises(QuantrustError, match=r"/none\.bin: the server answers 404 Not Found; correct the address"):
        get(url=f"{server.address}/none.bin")
    assert list((tmp_path / "got").iterdir()) == []


def test_without_a_network_the_address_and_the_file_are_named(get, server, tmp_path):
    server.stop()
    with pytest.raises(
        QuantrustError, match=r"^http\S+: cannot be reached \(Connection refused\); .* put it at \S+file\.bin$"
    ):
        get()
    with pytest.raises(QuantrustError, match=r"^http://no-such-host\.invalid/f: cannot be reached \("):
        get(url="http://no-such-host.invalid/f")


def test_too_small_a_disk_is_found_before_anything_is_written(get, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(QuantrustError, match="1,048,576 bytes are needed and 1 are free"):
        get()


def archive(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return buffer.getvalue()


def test_an_archive_is_unpacked_without_its_folders(get, server):
    server.files["/v.zip"] = archive({"val/": "", "val/a.json": "1", "../../b.json": "2", "__MACOSX/val/._a.json": "x"})
    folder = get(url=f"{server.address}/v.zip", unpack=True)
    assert {path.name: path.read_text() for path in folder.glob("*.json")} == {"a.json": "1", "b.json": "2"}
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "b.json", "v.zip"]


def test_unpacking_goes_on_where_it_stopped_and_mends_what_is_damaged(get, server):
    server.files["/v.zip"] = archive({"a": "one", "b": "two", "c": "three"})
    folder = get(url=f"{server.address}/v.zip", unpack=True)
    (folder / "a").unlink()
    (folder / "b").write_text("tvo")
    before = (folder / "c").stat().st_mtime_ns
    get(url=f"{server.address}/v.zip", unpack=True)
    assert [(folder / name).read_text() for name in "abc"] == ["one", "two", "three"]
    assert (folder / "c").stat().st_mtime_ns == before


def test_a_damaged_archive_is_named(get, server):
    server.files["/v.zip"] = archive({"a": "one"})[:-30]
    with pytest.raises(QuantrustError, match=r"v\.zip: is not a whole zip archive"):
        get(url=f"{server.address}/v.zip", unpack=True)


def test_two_files_of_one_name_are_refused(get, server):
    server.files["/v.zip"] = archive({"x/a": "one", "y/a": "two"})
    with pytest.raises(QuantrustError, match=r"v\.zip: holds two files with the name a"):
        get(url=f"{server.address}/v.zip", unpack=True)


HUB = {"repository": "owner/data", "revision": "main", "kind": "dataset", "files": ["data/*"]}


@pytest.fixture
def hub(server):
    server.files |= {"data/rows.bin": CONTENT, "data/more.txt": b"more", "README.md": b"read me"}
    return server


def test_files_of_a_repository_are_recorded_with_the_commit_of_the_revision(get, hub, tmp_path):
    folder = get(url=None, hub=HUB)
    assert (folder / "data" / "rows.bin").read_bytes() == CONTENT
    assert not (folder / "README.md").exists()
    assert lock(tmp_path)["commit"] == COMMIT
    assert lock(tmp_path)["files"].keys() == {"data/rows.bin", "data/more.txt"}


def test_a_branch_that_moved_on_is_fetched_at_the_recorded_commit(get, hub):
    (get(url=None, hub=HUB) / "data" / "more.txt").unlink()
    hub.revisions |= {"main": LATER, LATER: LATER}
    hub.requests.clear()
    get(url=None, hub=HUB)
    assert not any(LATER in path or "main" in path for _, path, _ in hub.requests)
    assert any(COMMIT in path for _, path, _ in hub.requests)


def test_a_repository_that_is_there_is_checked_without_the_network(get, hub):
    folder = get(url=None, hub=HUB)
    hub.stop()
    get(url=None, hub=HUB)
    (folder / "data" / "more.txt").write_text("less")
    with pytest.raises(QuantrustError, match=r"more\.txt: has 4 bytes and the SHA-256"):
        get(url=None, hub=HUB)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"revision": "v9"}, r"downloads\.x: dataset owner/data: has no revision v9; give a branch, tag or commit"),
        ({"repository": "owner/nothing"}, r"downloads\.x: dataset owner/nothing: does not exist, or is private"),
        ({"files": ["*.gguf"]}, r"has no file that matches \*\.gguf at revision main"),
    ],
)
def test_what_the_hub_has_not_is_named(get, hub, change, message):
    with pytest.raises(QuantrustError, match=message):
        get(url=None, hub=HUB | change)


MODEL = {"repository": "owner/model", "revision": "main", "kind": "model"}


def test_all_files_of_a_model_are_fetched_and_locked(get, hub, tmp_path):
    hub.files.pop("/a/file.bin")
    folder = get(url=None, hub=MODEL)
    assert (folder / "data" / "rows.bin").read_bytes() == CONTENT
    assert lock(tmp_path)["files"].keys() == hub.files.keys()


@pytest.mark.parametrize("revision", ["v9", "c" * 40])
def test_a_revision_that_a_model_does_not_have_is_named(get, hub, tmp_path, revision):
    with pytest.raises(
        QuantrustError, match=rf"^downloads\.x: model owner/model: has no revision {revision}; give a branch.*exists$"
    ):
        get(url=None, hub=MODEL | {"revision": revision})
    assert not (tmp_path / "x.lock").exists()


@pytest.mark.parametrize("source", [HUB, MODEL])
def test_without_a_network_the_repository_and_the_host_are_named(get, hub, source, tmp_path):
    hub.stop()
    where = f"{source['kind']} {source['repository']}: the hub at {hub.address}"
    with pytest.raises(QuantrustError, match=rf"{where} cannot be reached \(.*refused.*\); check") as caught:
        get(url=None, hub=source)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x.lock").exists()


@pytest.mark.parametrize("begun", [False, True])
def test_a_network_that_goes_in_the_middle_is_no_end_of_the_download(get, hub, tmp_path, monkeypatch, begun):
    snapshot_download = client.snapshot_download

    def without_network(*arguments, **keywords):
        # connections that are open end, and no new one is made
        hub.gone = True
        hub.stop()
        return snapshot_download(*arguments, **keywords)

    if begun:
        (tmp_path / "got" / "data").mkdir(parents=True)
        (tmp_path / "got" / "data" / "more.txt").write_bytes(b"more")
    monkeypatch.setattr(client, "snapshot_download", without_network)
    with pytest.raises(
        QuantrustError, match=rf"dataset owner/data: the hub at {hub.address} cannot be reached"
    ) as caught:
        get(url=None, hub=HUB)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x.lock").exists()


def test_rows_of_a_repository_become_official_files(get, server, tmp_path):
    rows = {
        "question_id": ["VizWiz_val_0.jpg", "VizWiz_val_1.jpg"],
        "question": ["What is this?"] * 2,
        "answers": [["a can"] * 10] * 2,
        "image": [{"bytes": b"first", "path": None}, {"bytes": b"second", "path": None}],
    }
    for number in range(2):
        part = {name: values[number : number + 1] for name, values in rows.items()}
        datasets.Dataset.from_dict(part).cast_column("image", datasets.Image()).to_parquet(tmp_path / "part")
        server.files[f"data/val-{number}.parquet"] = (tmp_path / "part").read_bytes()
    folder = get(url=None, hub=HUB | {"files": ["data/val-*"]}, rows="vizwiz")
    questions = read_vizwiz(folder / "annotations.json", folder / "images")
    assert [question.image_id for question in questions] == rows["question_id"]
    assert [(folder / "images" / question.image_id).read_bytes() for question in questions] == [b"first", b"second"]
    assert lock(tmp_path)["files"].keys() == {"data/val-0.parquet", "data/val-1.parquet"}

    # the next check gives a study no reason to read them anew
    (folder / "images" / "VizWiz_val_1.jpg").unlink()
    written = (folder / "annotations.json").stat().st_mtime_ns
    get(url=None, hub=HUB | {"files": ["data/val-*"]}, rows="vizwiz")
    assert (folder / "annotations.json").stat().st_mtime_ns == written
    assert (folder / "images" / "VizWiz_val_1.jpg").read_bytes() == b"second"
    assert {path.name for path in folder.iterdir() if path.is_file()} == {"annotations.json"}


@pytest.mark.slow
def test_every_download_that_is_asked_for_again_checks_what_is_there(server, tmp_path):
    server.files["/a/file.bin"] = CONTENT
    workspace = Workspace.make(tmp_path)
    workspace.configure({"downloads": {"it": {"url": f"{server.address}/a/file.bin", "folder": "got"}}})
    record, file = "data/downloads/it.json", tmp_path / "got" / "file.bin"
    workspace.run(record)
    written = file.stat().st_mtime_ns
    server.requests.clear()
    assert "localrule fetch_download:" in workspace.run(record)
    assert (server.requests, file.stat().st_mtime_ns) == ([], written)

    file.write_bytes(CONTENT[:-1] + b"x")
    run = workspace.start(record)
    printed, _ = run.communicate()
    assert run.returncode != 0
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: got/file.bin: has 1,048,576 bytes and the SHA-256 ")
    assert "but config/lock/it.json records 1,048,576 and " in line
