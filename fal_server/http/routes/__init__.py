"""The paths that the controller answers itself. They are runners and logs, the account, queue, files, tokens."""
