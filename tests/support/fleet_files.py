"""Files that describe a grid or a mesh."""

from pathlib import Path


def grid_file(folder: Path, text: str) -> Path:
    """A grid file in `folder` with this text."""
    return _written(folder / "grid.toml", text)


def mesh_file(folder: Path, text: str) -> Path:
    """A mesh file in `folder` with this text."""
    return _written(folder / "mesh.toml", text)


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
