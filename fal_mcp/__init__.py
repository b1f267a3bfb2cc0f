"""Tools for agents: what fal's Platform MCP serves, and actions of ours, over the HTTP of a controller.

`fal mcp` serves them to a program on the same machine, a controller at /v1/mcp/platform. Only `server` needs the SDK.
"""
