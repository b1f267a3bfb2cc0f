"""The master key, the vault and signatures."""
