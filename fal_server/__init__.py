"""The controller: builds apps' environments, runs and scales their runners, serves them, and speaks the fal wire."""
