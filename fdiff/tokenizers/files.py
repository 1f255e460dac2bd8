"""The files of a tokenizer, from a folder or the Hub."""

from pathlib import Path

from fdiff.hub import Source, fetch, pinned, read_json, reading

FILES = (
    "tokenizer_config.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)


def fetch_folder(source: Source, filenames: tuple[str, ...] = FILES) -> Path:
    """The folder that holds those of the files that there are; for errors see `fdiff.hub.fetch`."""
    folder: Path | None = None
    missing: OSError | None = None
    for filename in filenames:
        try:
            path = fetch(source, filename)
        except ConnectionError as error:
            if source.force_download:
                raise
            missing = missing or error
            source = source._replace(local_files_only=True)  # what was never downloaded may not exist at all
        except FileNotFoundError as error:
            missing = missing or error
        else:
            folder, source = path.parent, pinned(source, path)
    if folder is None and missing is not None:
        raise missing
    assert folder is not None
    return folder


def read_byte_pairs(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The pieces and their numbers of vocab.json, and the pairs that merges.txt puts together, the first ones first.

    Raises FileNotFoundError where they are not there.
    """
    vocab, path = folder / "vocab.json", folder / "merges.txt"
    if not vocab.is_file() or not path.is_file():
        raise FileNotFoundError(f"{folder} holds no tokenizer; it needs vocab.json and merges.txt.")
    with reading(path):
        lines = path.read_text("utf-8").split("\n")
    pairs = (line.split() for line in lines if line.strip() and not line.startswith("#version"))
    return read_json(vocab), [(first, second) for first, second in pairs]
