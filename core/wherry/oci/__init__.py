"""Types and digests of the OCI specifications."""
