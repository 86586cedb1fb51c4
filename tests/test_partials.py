"""What is written is whole or absent, whoever else writes, and whenever a writer dies or the power fails."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quantrust import partials
from quantrust.durable import sync, sync_files
from quantrust.files import atomic_directory, atomic_path

# Writes a file or a folder as a process of its own would, up to where it is killed.
KILLED = {
    "file": "with atomic_path(path) as partial:\n    partial.write_text('half')\n    os.kill(os.getpid(), 9)",
    "folder": "with atomic_directory(path) as partial:\n    (partial / 'a').touch()\n    os.kill(os.getpid(), 9)",
    # the second rename is the one that puts the new folder in its place
    "between the renames": """
renamed, rename = [], os.rename
def die(*paths):
    if renamed:
        os.kill(os.getpid(), 9)
    renamed.append(paths)
    rename(*paths)
os.rename = die
with atomic_directory(path) as partial:
    (partial / 'a').write_text('new')
""",
}


def run(code: str, path: Path) -> int:
    program = (
        f"import os, time\nfrom pathlib import Path\nfrom quantrust.files import *\npath = Path({str(path)!r})\n{code}"
    )
    return subprocess.run([sys.executable, "-c", program], check=False).returncode


@pytest.fixture
def look_again(monkeypatch):
    """Let this process look through folders as a new one would."""
    return lambda: monkeypatch.setattr(partials, "_looked_through", set())


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "scores.csv"
    with atomic_path(path) as one:
        one.write_text("1" * 1000)
        with atomic_path(path) as other:
            other.write_text("2" * 10)
            assert one != other
        assert path.read_text() == "2" * 10
    assert path.read_text() == "1" * 1000
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_folder_do_not_meet(tmp_path):
    path = tmp_path / "selector"
    with atomic_directory(path) as one:
        (one / "a").write_text("1")
        with atomic_directory(path) as other:
            (other / "b").write_text("2")
        assert [entry.name for entry in path.iterdir()] == ["b"]
    assert [entry.name for entry in path.iterdir()] == ["a"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_is_removed_by_the_next_in_the_folder(kind, tmp_path, look_again):
    assert run(KILLED[kind], tmp_path / "out") == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.") and left.name.endswith(".partial")
    look_again()
    with atomic_path(tmp_path / "other") as partial:
        assert list(tmp_path.iterdir()) == [partial]


def test_a_worker_that_outlives_its_writer_does_not_keep_what_that_one_left(tmp_path, look_again):
    code = """
with atomic_path(path) as partial:
    heard, said = os.pipe()
    if os.fork() == 0:
        os.write(said, b"x")
        time.sleep(20)
        os._exit(0)
    os.read(heard, 1)
    os.kill(os.getpid(), 9)
"""
    assert run(code, tmp_path / "out") == -9
    look_again()
    with atomic_path(tmp_path / "other") as partial:
        assert list(tmp_path.iterdir()) == [partial]


def test_a_forked_worker_does_not_end_its_writers_lock(tmp_path, look_again):
    with atomic_path(tmp_path / "out") as partial:
        worker = os.fork()
        if worker == 0:
            os._exit(0)
        os.waitpid(worker, 0)
        look_again()
        partials.remove_stale(tmp_path)
        assert partial.exists()


def test_what_a_living_writer_writes_stays(tmp_path, look_again):
    with atomic_path(tmp_path / "file") as file, atomic_directory(tmp_path / "folder") as folder:
        file.write_text("half")
        (folder / "a").write_text("half")
        look_again()
        with atomic_path(tmp_path / "other"):
            pass
        assert run("atomic_path(path).__enter__()", tmp_path / "another") == 0
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "a").read_text() == "half"


@pytest.mark.parametrize("write", [atomic_path, atomic_directory])
def test_what_another_process_takes_for_abandoned_before_it_is_locked_is_made_anew(write, tmp_path, monkeypatch):
    make, lost = os.open, []

    def make_and_lose(path, flags, *mode, **more):
        descriptor = make(path, flags, *mode, **more)
        if flags & os.O_EXCL and not lost:
            other = make(path, os.O_RDWR)
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lost.append((Path(path), other))
        return descriptor

    monkeypatch.setattr(os, "open", make_and_lose)
    with write(tmp_path / "made") as partial:
        [(first, other)] = lost
        (partial if write is atomic_path else partial / "a").write_text("whole")
        # only now does the other one remove it
        first.unlink()
        os.close(other)
    made = tmp_path / "made"
    assert (made if write is atomic_path else made / "a").read_text() == "whole"


def test_a_folder_whose_writer_died_between_the_two_renames_is_put_in_its_place(tmp_path, look_again):
    path = tmp_path / "out"
    path.mkdir()
    (path / "a").write_text("old")
    assert run(KILLED["between the renames"], path) == -9
    assert not path.exists()
    look_again()
    with atomic_path(tmp_path / "other"):
        pass
    assert (path / "a").read_text() == "new"
    assert {entry.name for entry in tmp_path.iterdir()} == {"out", "other"}


def test_the_old_folder_stands_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    path = tmp_path / "out"
    path.mkdir()
    (path / "a").write_text("old")
    rename = os.rename

    def refuse(source, target):
        if Path(source).name == partials.CONTENT:
            raise PermissionError(1, "Operation not permitted")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(PermissionError), atomic_directory(path) as partial:
        (partial / "a").write_text("new")
    assert (path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_another_hosts_partial_is_left_for_a_day(tmp_path, look_again, monkeypatch):
    """On some shared disks no host sees another's locks."""
    left = tmp_path / f".out.{'0' * 16}.partial"
    monkeypatch.setattr(partials, "_host", lambda: "ffff")
    for age, kept in ((partials.DAY - 600, True), (partials.DAY + 600, False)):
        left.write_text("half")
        os.utime(left, (time.time() - age,) * 2)
        look_again()
        partials.remove_stale(tmp_path)
        assert left.exists() == kept


def test_files_of_others_are_no_partials(tmp_path, look_again):
    names = ["out.partial", ".out.partial", ".out.version.partial", f".{'0' * 16}.partial"]
    for name in names:
        (tmp_path / name).touch()
    look_again()
    partials.remove_stale(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize("write", [atomic_path, atomic_directory])
def test_nothing_is_written_through_a_link_that_lies_there(write, tmp_path, monkeypatch):
    monkeypatch.setattr(partials.secrets, "token_hex", lambda size: "0" * 2 * size)
    (tmp_path / "victim").write_text("whole")
    partials._new_name(tmp_path / "out").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError), write(tmp_path / "out"):
        pass
    assert (tmp_path / "victim").read_text() == "whole"


def test_a_name_as_long_as_names_may_be_can_be_written(tmp_path):
    for name in ("x" * 255, "é" * 127):
        with atomic_path(tmp_path / name) as partial:
            partial.write_text("whole")
        assert (tmp_path / name).read_text() == "whole"
    for write in (atomic_path, atomic_directory):
        with pytest.raises(OSError, match="File name too long"), write(tmp_path / ("x" * 256)):
            pytest.fail("this is found out before anything is written")


@pytest.fixture
def calls(monkeypatch):
    """What is brought to the disk, and renamed, in order: inodes, and the names that entries get."""
    made, fsync, rename, replace = [], os.fsync, os.rename, os.replace

    def synced(descriptor):
        made.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", lambda source, target: (made.append(Path(target).name), rename(source, target)))
    monkeypatch.setattr(os, "replace", lambda source, target: (made.append(Path(target).name), replace(source, target)))
    return made


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_after(tmp_path, calls):
    with atomic_path(tmp_path / "out") as partial:
        partial.write_text("whole")
    assert calls == [(tmp_path / "out").stat().st_ino, "out", tmp_path.stat().st_ino]


def test_a_folder_is_on_the_disk_before_it_has_its_name_and_its_name_after(tmp_path, calls):
    with atomic_directory(tmp_path / "out") as partial:
        (partial / "images").mkdir()
        for name in ("a", "images/b", "images/c"):
            (partial / name).write_text("whole")
    places = [path.stat().st_ino for path in (tmp_path / "out", *(tmp_path / "out").rglob("*"))]
    assert sorted(calls[:5]) == sorted(places)
    assert calls[4:] == [places[0], "out", tmp_path.stat().st_ino]


def test_many_files_come_to_the_disk_together(tmp_path, calls):
    paths = [tmp_path / folder / name for folder in ("one", "other") for name in ("a", "b")]
    for path in paths:
        with atomic_path(path, durable=False) as partial:
            partial.write_text("whole")
    assert calls == ["a", "b", "a", "b"]
    sync_files(paths)
    assert calls[4:] == [place.stat().st_ino for place in (*paths, tmp_path / "one", tmp_path / "other")]


def test_a_folder_on_a_file_system_that_cannot_sync_folders_is_let_be_and_a_file_is_not(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    sync(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Invalid argument"):
        sync(tmp_path / "file")
