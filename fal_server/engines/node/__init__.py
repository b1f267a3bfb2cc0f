"""The node process. It lets a controller on another machine run runners on this one."""
