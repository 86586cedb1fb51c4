"""A Slurm cluster of one node, started and stopped by the tests, with all that belongs to it in one folder.

It is Slurm as Debian packages it, with munge, and no database of jobs. Its node claims 200 GB of memory and a GPU that
need not exist: Slurm hands out what its configuration says. Nothing is written outside the folder, so that no Slurm of
the machine's own is disturbed.
"""

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

SEARCHED = f"{os.environ['PATH']}:/usr/sbin:/sbin"
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "squeue", "scontrol", "setpriv")
# No control groups, which want systemd. A job's memory is looked at every second, and a job that takes more than it
# asked for is killed. Two CPUs: two jobs at a time.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
MinJobAge=3600
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=200000 Gres=gpu:1
PartitionName=cpu Nodes={host}
PartitionName=gpu Nodes={host}
"""


class Cluster:
    """A one-node cluster whose daemons are children of this process and end with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configuration = folder / "slurm.conf"
        self.daemons: list[subprocess.Popen[bytes]] = []

    @property
    def environment(self) -> dict[str, str]:
        """The environment of whoever uses this cluster."""
        path = f"{self.folder / 'bin'}:{SEARCHED}"
        return {**os.environ, "PATH": path, "SLURM_CONF": str(self.configuration)}

    def start(self) -> None:
        """Start the daemons and wait until the node takes jobs."""
        for name in ("state", "spool", "bin"):
            (self.folder / name).mkdir(parents=True)
        self._configure()
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={self.folder / 'munge'}.{suffix}" for option, suffix in files.items()]
        # Forced, because the folder is closed to other users, as it should be.
        self._run("munged", "--foreground", "--force", *options)
        self._wait(lambda: (self.folder / "munge.socket").exists())
        self._run("slurmctld", "-D")
        self._run("slurmd", "-D")
        self._wait(lambda: "State=IDLE" in self.ask("scontrol", "show", "node"))

    def _configure(self) -> None:
        with socket.socket() as first, socket.socket() as second:
            for free in (first, second):
                free.bind(("127.0.0.1", 0))
            ports = [free.getsockname()[1] for free in (first, second)]
        host = socket.gethostname().split(".")[0]
        written = CONFIGURATION.format(host=host, ports=ports, user=getpass.getuser(), folder=self.folder)
        self.configuration.write_text(written)
        (self.folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        # Jobs start their steps without the variables of Slurm, and srun would look for its configuration in /etc.
        srun = self.folder / "bin" / "srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.configuration} exec {shutil.which("srun", path=SEARCHED)} "$@"\n')
        srun.chmod(0o755)

    def _run(self, daemon: str, *arguments: str) -> None:
        # When this process is killed, its daemons end as well; Ctrl-C is for this process alone, which then stops them.
        command = ["setpriv", "--pdeathsig", "TERM", daemon, *arguments]
        with (self.folder / f"{daemon}.out").open("wb") as printed:
            self.daemons.append(
                subprocess.Popen(
                    command, env=self.environment, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True
                )
            )

    def _wait(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not ready():
            if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in self.daemons):
                printed = "\n".join(path.read_text() for path in sorted(self.folder.glob("*.out")))
                raise AssertionError(f"the cluster did not start:\n{printed}")
            time.sleep(0.2)

    def ask(self, *command: str) -> str:
        """Return what a command of Slurm prints, errors as well."""
        asked = subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
        )
        return asked.stdout

    def jobs(self) -> list[dict[str, str]]:
        """Return what Slurm knows of every job so far, the first submitted first."""
        lines = self.ask("scontrol", "show", "job", "--oneliner").splitlines()
        jobs = [dict(field.split("=", 1) for field in line.split() if "=" in field) for line in lines]
        return sorted((job for job in jobs if "JobId" in job), key=lambda job: int(job["JobId"]))

    def wait_for_jobs(self) -> None:
        """Wait until no job waits, runs or is being ended, a minute at most."""
        deadline = time.monotonic() + 60
        while self.ask("squeue", "--noheader").strip() and time.monotonic() < deadline:
            time.sleep(0.5)

    def stop(self) -> None:
        """Cancel all jobs, end the daemons, and end what a job may have left behind."""
        if all(daemon.poll() is None for daemon in self.daemons):
            self.ask("scancel", "--user", getpass.getuser())
            self.wait_for_jobs()
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(30)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        left = self.processes()
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=10)

    def processes(self) -> list[psutil.Process]:
        """Return all processes that belong to this cluster."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SLURM_CONF") == str(self.configuration):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    missing = [name for name in NEEDED if shutil.which(name, path=SEARCHED) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}; `make test-slurm` installs Debian's slurm-wlm and munge")
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    # Whoever ends the tests ends the cluster as well.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        signal.signal(signal.SIGTERM, before)
    assert cluster.processes() == []
