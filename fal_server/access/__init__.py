"""Who may do what: permissions, authentication, tokens and scopes, asked in one place."""
