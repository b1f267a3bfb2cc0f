"""The presentation of results: tables, colour, charts and text that is safe to print."""
