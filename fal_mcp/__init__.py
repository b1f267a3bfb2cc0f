"""Tools for agents: those of fal's Platform MCP and our own actions, over a controller's HTTP API.

`fal mcp` serves them to a program on the same machine, a controller at /v1/mcp/platform. Only `server` needs the SDK.
"""
