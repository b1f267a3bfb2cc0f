"""A module of the app beside this file."""


def loud(text: str) -> str:
    return text.upper()
