"""Charts, panels, pages and trackers of audits and comparisons."""
