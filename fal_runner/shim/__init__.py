"""The process that looks after one runner and outlives the controller."""
