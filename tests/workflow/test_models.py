"""Published models through config lines alone: what a folder must hold, and what the config changes of it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open

from study_workspace import ROOT, link_workflow

TARGET = "data/models/mine"


def write(models: dict, downloads: dict | None = None) -> None:
    overlay = {"study": {"models": list(models)}, "models": models, "downloads": downloads or {}}
    Path("study.yaml").write_text(yaml.safe_dump(overlay))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the workflow, the path where the config names a model, and nothing there."""
    monkeypatch.chdir(tmp_path)
    link_workflow(tmp_path)
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    return tmp_path / "published" / "mine"


def snakemake(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "--configfile", "study.yaml", "--cores", "1", *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def planned(*targets: str) -> str:
    done = snakemake("--dry-run", "--", *targets)
    assert done.returncode == 0, done.stdout
    return done.stdout


def refused(*arguments: str) -> str:
    done = snakemake(*arguments, "--", TARGET)
    assert done.returncode != 0
    assert not Path(TARGET).exists()
    return done.stdout


def published(folder: Path) -> None:
    """Put a shipped model there as if it came from elsewhere: without the list of its digests, and in one shard."""
    ignored = shutil.ignore_patterns("training.*")
    shutil.copytree(ROOT / "resources" / "models" / "idefics3-tiny", folder, ignore=ignored)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    with safe_open(folder / "model-00001-of-00001.safetensors", "np") as file:
        places = dict.fromkeys(file.keys(), "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def test_a_model_that_is_not_there_is_named_with_its_key_and_how_it_is_had(workspace: Path) -> None:
    write({"mine": {"source": str(workspace), "family": "idefics3"}})
    message = f"{workspace} does not exist, but models.mine.source of the config names it; correct the path"
    assert f"{message}\n" in refused("--dry-run")

    hub = {"repository": "owner/model", "revision": "main", "kind": "model"}
    downloads = {"it": {"hub": hub, "folder": str(workspace)}}
    write({"mine": {"source": str(workspace), "family": "idefics3", "downloads": ["it"]}}, downloads)
    assert f"{message}, or get it with `snakemake download` and the same --configfile\n" in refused("--dry-run")
    assert "rule fetch_download:" in planned("download")

    workspace.mkdir(parents=True)
    message = f"{workspace} holds no config.json, but models.mine.source of the config names it; expected a model"
    assert message in refused("--dry-run")


def test_a_chat_template_that_is_not_there_is_named(workspace: Path) -> None:
    published(workspace)
    write({"mine": {"source": str(workspace), "family": "idefics3", "chat_template": "mine.jinja"}})
    message = "mine.jinja does not exist, but models.mine.chat_template of the config names it; correct the path\n"
    assert message in refused("--dry-run")


@pytest.mark.slow
def test_a_model_is_prepared_as_the_config_says_and_again_when_a_file_of_it_changes(workspace: Path) -> None:
    published(workspace)
    Path("mine.jinja").write_text("<image>{{ messages[0]['content'][1]['text'] }}")
    model = {
        "source": str(workspace),
        "family": "idefics3",
        "processor": {"do_image_splitting": True, "size": {"longest_edge": 128}},
        "chat_template": "mine.jinja",
        "prompt": "{question} In a word:",
    }
    write({"mine": model})
    done = snakemake("--", TARGET)
    assert done.returncode == 0, done.stdout
    prepared = Path(TARGET)
    recorded = json.loads((prepared / "preprocessor_config.json").read_text())
    assert (recorded["do_image_splitting"], recorded["size"]) == (True, {"longest_edge": 128})
    assert (prepared / "chat_template.jinja").read_text() == Path("mine.jinja").read_text()
    assert (prepared / "model-00001-of-00001.safetensors").samefile(workspace / "model-00001-of-00001.safetensors")
    assert "Nothing to be done" in planned(TARGET)

    for path in (Path("mine.jinja"), workspace / "tokenizer.json", workspace / "model-00001-of-00001.safetensors"):
        content, times = path.read_bytes(), path.stat()
        # small files are told by their content, large ones by their time
        path.write_bytes(content + b"\n")
        assert "rule prepare_model:" in planned(TARGET)
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    write({"mine": {**model, "prompt": "{question} Briefly:"}})
    assert "Nothing to be done" in planned(TARGET)
    write({"mine": {**model, "processor": {"do_image_splitting": False}}})
    assert "rule prepare_model:" in planned(TARGET)


def test_a_model_whose_shard_is_missing_stops_with_one_line(workspace: Path) -> None:
    published(workspace)
    shard = workspace / "model-00001-of-00001.safetensors"
    shard.unlink()
    write({"mine": {"source": str(workspace), "family": "idefics3"}})
    lines = [line for line in refused().splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {shard} is missing, though model.safetensors.index.json names it for ")
