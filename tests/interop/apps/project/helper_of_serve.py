"""What the app beside this file uses."""


def loud(text: str) -> str:
    return text.upper()
