"""Folders that files are sent from and received in."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An empty folder to send from."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder to receive in, which is not there yet."""
    return tmp_path / "out"
