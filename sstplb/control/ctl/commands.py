"""``sstplb ctl``: its commands together."""

import typer

from sstplb.control.ctl import capturing, doing, groups, pools, seeing
from sstplb.control.ctl.group import EPILOG, HELP, AnywhereGroup, callback

app = typer.Typer(
    cls=AnywhereGroup, help=HELP, epilog=EPILOG, no_args_is_help=True, rich_markup_mode="rich"
)
app.callback()(callback)
app.add_typer(seeing.app)
app.add_typer(groups.app)
app.add_typer(capturing.app, name="capture")
app.add_typer(doing.app)
app.add_typer(pools.app)
