"""Run folders as one HTML page: `build` lays it out from `data`, `charts` and `tables`."""
