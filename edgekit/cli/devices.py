"""`edgekit devices`: where bundles can run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgekit.measurement import DeviceFacts

RUNTIME_HELP = (
    "litert, tflite-runtime or onnxruntime, else the first that fits; or onnxruntime-qnn, onnxruntime-webgpu, "
    "onnxruntime-openvino, litert-openvino. Each of the last four gets an environment of its own, on local as well."
)
run_devices = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@run_devices.callback()
def list_all(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the devices that can be reached: this machine, phones that adb sees, and those of devices.toml.

    devices.toml is in your folder for configuration (EDGEKIT_DEVICES names another) and gives boards names:

        pi4.address = "ssh:pi@raspberrypi.local"

    There may also be `pi4.folder`, where temporary folders go there, and `pi4.python`, the interpreter to use.

    Examples:

        edgekit devices

        edgekit devices setup pi4

        edgekit devices setup ssh:pi@raspberrypi.local --offline
    """
    if context.invoked_subcommand is not None:
        return
    from edgekit.cli.output import print_json, print_table, stderr
    from edgekit.devices.listing import list_devices

    listed = list_devices()
    if as_json:
        print_json([{"name": one.name, **one.facts.model_dump(mode="json")} for one in listed])
        return
    headers = ["device", "state", "model", "SoC", "cores", "memory", "system", "runtimes", "accelerators"]
    print_table(headers, [[one.name, *_cells(one.facts)] for one in listed])
    for one in listed:
        if one.facts.advice:
            stderr.print(f"{one.name}: {one.facts.advice.replace('setup NAME', f'setup {one.name}')}", markup=False)


def _cells(facts: "DeviceFacts") -> list[str]:
    from edgekit.cli.output import human_size

    return [
        facts.state,
        facts.model,
        " ".join(part for part in (facts.soc, facts.machine) if part),
        "" if facts.cores is None else str(facts.cores),
        "" if facts.memory_bytes is None else human_size(facts.memory_bytes),
        facts.os,
        ", ".join([*(f"{name} {version}" for name, version in facts.runtimes.items()), *facts.environments]),
        ", ".join(facts.accelerators),
    ]


@run_devices.command("setup")
def set_up_board(
    name: Annotated[str, typer.Argument(help="ssh:user@host[:port], a name of devices.toml, or local.")],
    runtime: Annotated[list[str] | None, typer.Option(help=RUNTIME_HELP, show_default=False)] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Fetch the wheels here, for the board's platform, and copy them.")
    ] = False,
    wheels: Annotated[
        Path | None, typer.Option(help="A folder of wheels to use; no package index is asked.", exists=True)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prepare a board: an environment of its own (~/.edgekit/env) with numpy and one runtime.

    It needs no root and installs nothing else; `rm -r ~/.edgekit` on the board undoes it. An earlier environment is
    replaced once the new one works. Runtimes of accelerators live in ~/.edgekit/env-NAME beside it.

    Examples:

        edgekit devices setup pi4

        edgekit devices setup pi4 --runtime onnxruntime --offline

        edgekit devices setup local --runtime onnxruntime-qnn,onnxruntime-webgpu
    """
    from dataclasses import asdict

    from edgekit.cli.output import print_json, split_list, stderr
    from edgekit.devices.registry import open_device
    from edgekit.devices.setup import set_up

    def say(text: str) -> None:
        stderr.print(f"{name}: {text}", markup=False)

    made = []
    with open_device(name) as device:
        names: list[str | None] = [*split_list(runtime or [])]
        for each in names or [None]:
            made.append(set_up(device, runtime=each, offline=offline, wheels=wheels, on_progress=say))
    if as_json:
        print_json([asdict(prepared) for prepared in made] if len(made) > 1 else asdict(made[0]))
        return
    for prepared in made:
        versions = ", ".join(f"{library} {version}" for library, version in prepared.versions.items())
        typer.echo(f"{name} is ready: {versions}; its Python is {prepared.python}")
