"""What every engine that starts our shim needs: its calls, its events, its log lines and its commands."""
