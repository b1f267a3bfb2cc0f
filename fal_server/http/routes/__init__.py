"""The paths that the controller answers itself: runners and logs, the account, queue, files, tokens."""
