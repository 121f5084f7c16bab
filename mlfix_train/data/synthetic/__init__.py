"""Rendered traffic signs, so that demonstrations and benchmarks need no download: ``signs`` writes and reads them."""
