"""The HTTP face: front door, REST and the gateway to the runners."""
