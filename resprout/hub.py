"""Files of the Hugging Face Hub. Without torch, for what only looks them up."""

from __future__ import annotations

from pathlib import Path

from resprout.errors import ArtifactError, UnsupportedModelError


def hub_file(repository: str, name: str, revision: str | None) -> Path:
    """A file of a repository, in the hub's own cache: .../snapshots/COMMIT/NAME.

    Args:
        repository: OWNER/REPO.
        name: the file's.
        revision: a branch, a tag or a commit; None: the main branch.

    Raises:
        UnsupportedModelError: the hub's client is not installed.
        ArtifactError: there is no such file, or it cannot be fetched.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise UnsupportedModelError(
            f"hf://{repository} needs huggingface_hub, which is not installed",
            now="pip install huggingface-hub   (or: pip install 'resprout[hub]')",
        ) from None
    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        at = f" at {revision}" if revision else ""
        raise ArtifactError(
            f"{name} of hf://{repository}{at} cannot be fetched: {str(error).splitlines()[0]}",
            now="check the name and this machine's network; for a private repository, log in with `hf auth login`",
        ) from error
