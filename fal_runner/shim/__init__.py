"""The process that supervises one runner and outlives the controller."""
