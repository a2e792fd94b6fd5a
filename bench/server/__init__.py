"""What a rendezvous server costs: memory for a peer, CPU for a message; one process and several with Redis."""
