"""The presentation of results: tables, color, charts and text that is safe to print."""
