"""Where runners run: the adapters of the Engine port."""
