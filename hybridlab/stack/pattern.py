"""The compact spelling of a list of mixers."""

import re

_TOKEN = re.compile(r"\s*(?:(?P<name>[A-Za-z_]\w*)|(?P<open>\()|\)(?:x(?P<times>\d+))?(?!\w))")


def expand_pattern(text: str) -> list[str]:
    """Return the list of mixer names that a compact string stands for.

    Spaces separate names. Parentheses group them, and `x<number>` after a group repeats it.

    >>> expand_pattern("(mamba2 mamba2 full)x2 sliding")
    ['mamba2', 'mamba2', 'full', 'mamba2', 'mamba2', 'full', 'sliding']
    """
    levels: list[list[str]] = [[]]
    position = 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"cannot be read at `{text[position:].strip()}`; write e.g. `(mamba2 full)x2 sliding`")
        position = match.end()
        if match["name"]:
            levels[-1].append(match["name"])
        elif match["open"]:
            levels.append([])
        elif len(levels) == 1:
            raise ValueError("a `)` without its `(`")
        else:
            repeated = levels.pop() * int(match["times"] or 1)
            levels[-1].extend(repeated)
    if len(levels) > 1:
        raise ValueError("a `(` without its `)`")
    return levels[0]
