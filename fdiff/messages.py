"""What error messages have in common."""


def show(value: object) -> str:
    """The value for an error message: one line, cut short."""
    if isinstance(value, int) and abs(value) >= 10**30:
        return f"a number of {value.bit_length()} bits"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
