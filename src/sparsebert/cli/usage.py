"""How the command line is read: usage errors take one line, and nothing that was typed is dropped in silence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from sparsebert.cli.errors import USER_ERROR, print_error
from sparsebert.errors import UserError

# Every whole number up to here is the same in all languages and formats.
LARGEST = 2**53


class OneLineErrors(TyperGroup):
    """Commands whose usage errors take one line, as all others do; alone they print the help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does; no arguments ask for help."""
        return super().parse_args(ctx, args or ["--help"])

    def main(self, args: Sequence[str] | None = None, *more: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """As typer does, and ends the process where it stands alone; exit code 2 for wrong usage."""
        try:
            _check_letters(sys.argv[1:] if args is None else args)
            ended = super().main(args, *more, standalone_mode=False, **extra)
        except typer.TyperException as error:
            if not standalone_mode:
                raise
            message = error.format_message()
            print_error(message if message.endswith("?") else str(UserError(message, fix="--help says more")))
            sys.exit(USER_ERROR)
        except UserError as error:
            print_error(str(error))
            sys.exit(USER_ERROR)
        return sys.exit(ended) if standalone_mode else ended


class EveryValueCounts(TyperCommand):
    """A command that refuses an option given twice, unless it takes several values: one of them would be lost.

    It also refuses whole numbers that are out of all proportion.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does; a usage error for a value that another would take the place of."""
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        given = [param for param in order if isinstance(param, TyperOption)]
        for option in given:
            if not option.multiple and not option.is_flag and given.count(option) > 1 and not ctx.resilient_parsing:
                ctx.fail(f"Option '{option.opts[0]}' is given {given.count(option)} times and takes one value")
        rest = super().parse_args(ctx, args)
        for param in self.get_params(ctx):
            _check_size(ctx, param, ctx.params.get(param.name))
        return rest


class App(typer.Typer):
    """An application all of whose commands are of that kind."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """As typer does."""
        return super().command(name, cls=EveryValueCounts, **options)


def _check_size(ctx: Any, param: Any, value: Any) -> None:
    """A usage error for a whole number that no library below takes; what it is too large for says its own check."""
    if any(isinstance(one, int) and abs(one) > LARGEST for one in (value if isinstance(value, list) else [value])):
        ctx.fail(f"Invalid value for '{param.opts[0]}': a whole number is larger than 2^53")


def _check_letters(args: Sequence[str]) -> None:
    """Raise UserError for an argument of bytes that are no text: it could neither be recorded nor printed."""
    for arg in args:
        try:
            arg.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(
                "An argument is not UTF-8", got=ascii(arg), fix="rename the file, or mend the text"
            ) from None
