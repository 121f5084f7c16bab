"""The page where a person marks wrong labels: samples, views, sprites, ledger, progress, desk; server and widget."""
