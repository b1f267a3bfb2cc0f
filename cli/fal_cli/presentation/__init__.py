"""The presentation of results: tables, color, charts and safely printable text."""
