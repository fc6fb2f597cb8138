"""Several processes of one service behind one port: what Prometheus stores is compared with what the clients were told."""
