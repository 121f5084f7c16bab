"""What the rest of the package uses: files found, YAML, JSON and CSV opened, atomic writes, worker processes."""
