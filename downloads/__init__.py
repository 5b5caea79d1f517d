"""Files from the network: downloaded, checked and unpacked."""
