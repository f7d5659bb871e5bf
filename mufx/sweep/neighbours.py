"""What a user's file is made of: itself, and the modules beside it that it imports."""

from __future__ import annotations

from hashlib import sha256
from modulefinder import ModuleFinder
from pathlib import Path
from types import ModuleType

import mufx
from mufx.loading import folder_of

_MUFX = Path(mufx.__file__).resolve().parent
_INSTALLED = {"site-packages", "dist-packages"}


def digest_of(module: ModuleType) -> str:
    """The sha256 of a module's file and of its neighbours, so that a change in any is noticed.

    A neighbour is found where an import statement names it. An installed package is one version,
    and stands for itself.
    """
    file = Path(str(module.__file__)).resolve()
    texts = [path.read_bytes() for path in (file, *_neighbours(module, file))]
    return sha256(b"".join(texts)).hexdigest()


def _neighbours(module: ModuleType, file: Path) -> list[Path]:
    folder = folder_of(module)
    if _INSTALLED & set(folder.parts):
        return []
    finder = ModuleFinder([str(folder)])
    if "." in module.__name__:
        finder.import_hook(module.__name__)
    else:
        finder.run_script(str(file))
    found = {Path(str(vars(m)["__file__"])).resolve() for m in finder.modules.values()}
    own = {path for path in found if path.suffix == ".py" and not path.is_relative_to(_MUFX)}
    return sorted(own - {file})
