"""The database: tables, migrations and one file for each noun."""
