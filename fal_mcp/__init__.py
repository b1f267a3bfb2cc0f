"""Tools for agents, over a controller's HTTP API. They are those of fal's Platform MCP and our own actions.

`fal mcp` serves them to a program on the same machine, a controller at /v1/mcp/platform. Only `server` needs the SDK.
"""
