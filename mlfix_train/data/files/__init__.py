"""What the rest of the package uses to read, write and work in parallel: atomic files, CSV, JSON, worker processes."""
