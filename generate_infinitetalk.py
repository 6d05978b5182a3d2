"""Makes a talking video: ``python generate_infinitetalk.py --help``.

Runs from a clone as it is, whatever the folder is called and from any working directory: where the
package is not installed, this file's folder is registered as ``infinitetalk`` first. Knows nothing
of the flags; those are ``pipeline.commands.main``'s.
"""

import importlib.util
import sys
from pathlib import Path

PACKAGE = "infinitetalk"


def register_package() -> None:
    """Make ``import infinitetalk`` find this file's folder, also when another copy is installed."""
    root = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(PACKAGE, root / "__init__.py", submodule_search_locations=[str(root)])
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)


def main() -> int:
    register_package()
    from infinitetalk.pipeline.commands.main import main as command_line

    return command_line(with_usual_command(sys.argv[1:]))


def with_usual_command(words: list[str]) -> list[str]:
    """As upstream's script, this one generates where no command is named, also for --help and for no words at all."""
    named = words and (not words[0].startswith("-") or words[0] in ("-V", "--version"))
    return words if named else ["generate", *words]


if __name__ == "__mp_main__":  # a process that this program starts
    register_package()
if __name__ == "__main__":
    sys.exit(main())
