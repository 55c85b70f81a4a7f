"""How the daemon reaches others and is reached: addresses, proxies, names, listening sockets."""
