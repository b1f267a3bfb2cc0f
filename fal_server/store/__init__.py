"""The database behind the Store and LogStore ports."""
