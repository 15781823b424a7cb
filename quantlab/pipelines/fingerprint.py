"""Digests of a pipeline's files, bit for bit; those of large files are remembered."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from quantlab.files import cache_folder, read_json, written

_PARTS = (".safetensors", ".json", ".txt", ".model")
"""Suffixes of a pipeline's weights, configurations and tokenizers."""

_LARGE = 64 * 2**20
"""Digests of files of at least this many bytes are remembered by path, size and time of change."""


def folder_fingerprint(root: Path, variant: str | None) -> str:
    """Digest of the variant and of all weight, configuration and tokenizer files of a pipeline's folder."""
    sha = hashlib.sha256(f"variant:{variant}".encode())
    files = [file for file in (*root.glob("*"), *root.glob("*/*")) if file.suffix in _PARTS and file.is_file()]
    for file in sorted(files):
        sha.update(f"{file.relative_to(root)}:{_file_digest(file)}\n".encode())
    return sha.hexdigest()


def _file_digest(file: Path) -> str:
    target = file.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", target.name):  # the Hugging Face cache names a weight file by its SHA-256
        return target.name
    status = target.stat()
    if status.st_size < _LARGE:
        return _sha256(target)
    known = cache_folder() / "digests.json"
    digests = _remembered(known)
    stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
    if digests.get(str(target), [None])[:3] != stamp:
        digests[str(target)] = [*stamp, _sha256(target)]
        with written(known) as scratch:
            scratch.write_text(json.dumps(digests, indent=1))
    return str(digests[str(target)][3])


def _remembered(file: Path) -> dict[str, Any]:
    """What is remembered; nothing where that is damaged."""
    try:
        known = read_json(file)
    except (OSError, ValueError):
        return {}
    whole = isinstance(known, dict) and all(isinstance(one, list) and len(one) == 4 for one in known.values())
    return known if whole else {}


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
