"""Access control: permissions, authentication, tokens and scopes, checked in one place."""
