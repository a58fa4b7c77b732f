"""The content-addressed store of artifacts and snapshots, a folder or any fsspec file system."""
