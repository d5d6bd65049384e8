"""Reports over finished runs: tables, pictures, one HTML page."""
