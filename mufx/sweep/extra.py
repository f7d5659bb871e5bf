"""The optional packages of a sweep."""

from __future__ import annotations

from importlib.util import find_spec

from mufx.diagnostics import MufxError, error

_PACKAGES = ("optuna", "matplotlib")


def require() -> None:
    """Checks that the packages of the extra `sweep` are there.

    Raises:
        MufxError: `MUF750` where one is missing.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise MufxError(
            error(
                "MUF750",
                f"a sweep needs {' and '.join(missing)}",
                hint="pip install 'mufx[sweep]'",
            )
        )
