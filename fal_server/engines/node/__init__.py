"""The node process: lets a controller on another machine run runners on this one."""
