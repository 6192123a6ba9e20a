"""Events to clients as they happen: server-sent events and WebSocket, from all instances to all."""
