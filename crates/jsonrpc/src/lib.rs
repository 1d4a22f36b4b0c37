//! MPP over JSON-RPC: MCP and WebSocket.
