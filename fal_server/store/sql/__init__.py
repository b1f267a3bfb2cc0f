"""The database: tables, migrations and one file a noun."""
