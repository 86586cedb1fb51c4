"""Files of repositories of the Hugging Face hub, at one commit."""

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects

from quantrust.disk import require_space
from quantrust.downloads.lock import Lock, checked, places
from quantrust.downloads.web import reason
from quantrust.errors import QuantrustError
from quantrust.files import path_inside


def fetch_repository(
    name: str, source: Mapping[str, Any], folder: Path, lock: Lock | None, endpoint: str | None = None
) -> dict[str, Any]:
    """Get files of a repository of the hub at one commit: the recorded one, or else that of the revision.

    Parameters
    ----------
    name : str
        The download's name in the config.
    source : mapping
        ``repository``, ``revision``, ``kind`` and perhaps ``files``, patterns of names.
    folder : Path
        Where the files are put, by their names in the repository.
    lock : Lock or None
    endpoint : str, optional
        Address of the hub; its client's own by default.

    Returns
    -------
    dict
        What a lock records.

    Raises
    ------
    QuantrustError
        If the hub cannot be reached, refuses or answers nonsense, something asked for does not exist, the disk is too
        small, or what came is not what the lock or the hub says.
    """
    recorded = places(lock, folder)
    if lock is not None and all(path.is_file() for path in recorded.values()):
        # Nothing is missing; the files that are there are checked without the network.
        files = {file: checked(path, file, lock) for file, path in recorded.items()}
        return {"source": dict(source), "commit": lock.commit, "files": files}
    repository, kind = source["repository"], source["kind"]
    revision = source["revision"] if lock is None else lock.commit
    where = f"downloads.{name}: {kind} {repository}"
    hub = HfApi(endpoint=endpoint)
    try:
        commit, siblings = _list_files(hub, source, revision, where)
        paths = {file.rfilename: path_inside(folder, file.rfilename, where) for file in siblings}
        missing = [file for file in siblings if not paths[file.rfilename].exists()]
        require_space(folder, sum(file.size or 0 for file in missing))
        snapshot_download(
            repository,
            repo_type=kind,
            revision=commit,
            local_dir=folder,
            # names, which the client takes for patterns
            allow_patterns=[glob.escape(name) for name in paths],
            endpoint=endpoint,
        )
        # where part of it was there, the client takes that for the whole when the network is gone
        if lacking := [name for name, path in paths.items() if not path.is_file()]:
            raise LocalEntryNotFoundError(f"{lacking[0]} has not come")
    except GatedRepoError:
        raise QuantrustError(
            f"{where}: is gated; accept its terms on the hub and log in with `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise QuantrustError(
            f"{where}: does not exist, or is private; correct the name in the config, or log in with `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise QuantrustError(f"{where}: has no revision {revision}; give a branch, tag or commit that exists") from None
    except HfHubHTTPError as error:
        raise QuantrustError(f"{where}: the hub answers {error.response.status_code}; try again later") from None
    except (HTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        raise QuantrustError(
            f"{where}: the hub at {hub.endpoint} cannot be reached ({reason(error)}); check the network, or get "
            f"the files elsewhere and put them into {folder}"
        ) from None
    files = {}
    for file in siblings:
        path = paths[file.rfilename]
        files[file.rfilename] = checked(path, file.rfilename, lock)
        if file.lfs is not None and files[file.rfilename]["sha256"] != file.lfs.sha256:
            raise QuantrustError(
                f"{path}: has the SHA-256 {files[file.rfilename]['sha256']}, but the hub names "
                f"{file.lfs.sha256}; delete it and download it again"
            )
    return {"source": dict(source), "commit": commit, "files": files}


def _list_files(hub: HfApi, source: Mapping[str, Any], revision: str | None, where: str) -> tuple[str, list[Any]]:
    """Return the commit of a revision, and its files that match the patterns."""
    patterns = source.get("files")
    try:
        info = hub.repo_info(source["repository"], repo_type=source["kind"], revision=revision, files_metadata=True)
        listed = info.siblings or []  # type: ignore[union-attr]  # a source is a model or a dataset
        siblings = list(filter_repo_objects(listed, allow_patterns=patterns, key=lambda file: file.rfilename))
        commit = info.sha
    # The client's own errors are HTTPError. These come from an invalid name of a repository, or from an answer that the
    # hub did not give.
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise QuantrustError(
            f"{where}: what the hub at {hub.endpoint} answers is not understood ({reason(error)}); correct the name of "
            "the repository, or check the network"
        ) from None
    if not siblings:
        raise QuantrustError(f"{where}: has no file that matches {', '.join(patterns or ['*'])} at revision {revision}")
    if commit is None:
        raise QuantrustError(
            f"{where}: the hub at {hub.endpoint} names no commit of revision {revision}; check the network"
        )
    return commit, siblings
