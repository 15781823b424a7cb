"""How what ships was trained; no part of the package."""
