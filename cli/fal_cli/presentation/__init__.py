"""How results look: tables, colour, charts and text that is safe to print."""
