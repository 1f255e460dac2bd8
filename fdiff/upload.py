"""Where models, pipelines and schedulers are shared: repositories of the Hugging Face Hub."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from fdiff import downloads, hub


def push(
    save: Callable[[Path], object],
    repo_id: str,
    *,
    token: str | bool | None = None,
    private: bool | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
    pipeline_tag: str | None = None,
) -> str:
    """Upload what `save(folder)` writes to a repository of the Hub, made if need be; returns its address.

    A model card is added where the repository has none; `pipeline_tag` says in it what the model is for, such
    as "text-to-image". Raises PermissionError without a token that may write, and OSError offline.
    """
    from huggingface_hub import HfApi, errors

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "upload"
        save(folder)
        api = HfApi(token=token)
        try:
            with downloads.watched():
                made = downloads.patient(lambda: api.create_repo(repo_id, private=private, exist_ok=True), repo_id)
                repo_id = made.repo_id
                if not downloads.patient(lambda: api.file_exists(repo_id, "README.md"), repo_id):
                    (folder / "README.md").write_text(card(folder, repo_id, pipeline_tag), encoding="utf-8")
                commit = api.upload_folder(
                    repo_id=repo_id,
                    folder_path=folder,
                    commit_message=commit_message or "Upload with fdiff",
                    create_pr=create_pr,
                )
        except errors.HFValidationError as error:
            raise ValueError(f"{repo_id} is no id of a repository; check its name.") from error
        except Exception as error:  # also those of the HTTP library
            response = getattr(error, "response", None)
            if response is not None and response.status_code in (401, 403, 404):
                raise PermissionError(
                    f"{repo_id} may not be written; run `hf auth login` with a token that may write to it."
                ) from error
            raise OSError(f"{repo_id} was not uploaded ({hub.reason(error)}); check the connection.") from error
    return commit.pr_url or f"{api.endpoint}/{repo_id}"


def card(folder: Path, repo_id: str, pipeline_tag: str | None = None) -> str:
    """The README.md of a repository with those files: what it is, and how to load it."""
    names = ("model_index.json", "config.json", "scheduler_config.json")
    found = next(name for name in names if (folder / name).is_file())
    config = hub.read_json(folder / found)
    kind = hub.class_name(config, folder / found)
    call, target = {
        "model_index.json": ("DiffusionPipeline", "pipe, params"),
        "config.json": (kind, "model, params"),
        "scheduler_config.json": (kind, "scheduler"),
    }[found]
    tag = "" if pipeline_tag is None else f"pipeline_tag: {pipeline_tag}\n"
    return f"""---
library_name: fdiff
{tag}tags:
- fdiff
- jax
- {kind}
---

# {repo_id.split("/")[-1]}

A {kind} saved by fdiff (`pip install fdiff-jax`), in the layout that diffusers reads too.

```python
import fdiff

{target} = fdiff.{call}.from_pretrained("{repo_id}")
```
"""
