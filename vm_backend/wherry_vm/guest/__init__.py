"""What runs inside the machine: the other end of what the host asks for."""
