"""The paths that the controller answers itself: REST, queue, files, tokens, metrics, logs."""
