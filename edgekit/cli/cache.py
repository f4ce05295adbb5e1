"""`edgekit cache`: what earlier exports left, for the next ones; and the options of the verbs that use it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgekit.cache import Cache, CacheUse

CacheDirOption = Annotated[
    Path | None,
    typer.Option(
        envvar="EDGEKIT_CACHE_DIR",
        help="Folder of what earlier exports made, taken again where nothing that it was made from has changed; "
        "default: in your folder for caches.",
        show_default=False,
    ),
]


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """Whether earlier exports are taken, and from where."""

    cache_dir: CacheDirOption = None
    cache_size: Annotated[
        str,
        typer.Option(envvar="EDGEKIT_CACHE_SIZE", help="Its largest size; what was used least recently goes. 0: none."),
    ] = "2GB"
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Make everything again, and keep nothing.")] = False

    def open(self) -> "Cache | None":
        """The cache that is asked for; its remarks are warnings on stderr. None where there is to be none."""
        from edgekit.cache import Cache, cache_folder, parse_size
        from edgekit.cli.output import stderr

        max_bytes = parse_size(self.cache_size)
        if self.no_cache or not max_bytes:
            return None

        def warn(text: str) -> None:
            stderr.print(f"edgekit: warning: {text}", markup=False)

        return Cache(self.cache_dir or cache_folder(), max_bytes=max_bytes, on_remark=warn)


run_cache = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@run_cache.callback()
def show(
    context: typer.Context,
    cache_dir: CacheDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show where the cache of exports is and how much it holds; `edgekit cache clear` empties it.

    Examples:

        edgekit cache

        edgekit cache clear

        edgekit export --target all --cache-dir /mnt/large --cache-size 20GB

        edgekit export --target all --no-cache
    """
    if context.invoked_subcommand is None:
        _tell(cache_dir, "holds", as_json=as_json, clear=False)


@run_cache.command("clear")
def clear(
    cache_dir: CacheDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Remove everything from the cache.

    Examples:

        edgekit cache clear

        edgekit cache clear --cache-dir /mnt/large
    """
    _tell(cache_dir, "held", as_json=as_json, clear=True)


def _tell(folder: Path | None, verb: str, *, as_json: bool, clear: bool) -> None:
    from edgekit.cache import Cache, cache_folder
    from edgekit.cli.output import human_size, print_json

    cache = Cache(folder or cache_folder(), max_bytes=0)
    found: CacheUse = cache.clear() if clear else cache.use()
    if as_json:
        print_json({"folder": str(cache.folder), "entries": found.entries, "size_bytes": found.size_bytes})
    else:
        typer.echo(f"{cache.folder} {verb} {found.entries} results, {human_size(found.size_bytes)}.")
