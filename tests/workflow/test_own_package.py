"""Jobs run the package of their own project, not that of another checkout whose environment they use."""

import shutil
import subprocess
import sys
from pathlib import Path

from study_workspace import ROOT, Workspace


def test_a_job_imports_the_package_beside_its_script(tmp_path: Path) -> None:
    """The tests' environment has this checkout installed; the copy's own module is another."""
    workspace = Workspace.make(tmp_path / "copy")
    shutil.copytree(ROOT / "resources", workspace.folder / "resources")
    module = workspace.folder / "workflow" / "scripts" / "quantrust" / "models" / "model_folder.py"
    module.write_text('raise SystemExit("this is the module of the copy")\n')
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--", "data/models/adversary"]
    done = subprocess.run(
        command,
        cwd=workspace.folder,
        env=workspace.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode != 0
    assert "this is the module of the copy" in done.stdout
