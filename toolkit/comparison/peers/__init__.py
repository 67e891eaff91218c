"""Programs of others as transports of a trial: iperf3, and QUIC with aioquic."""
